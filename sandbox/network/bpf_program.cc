#include "sandbox/network/bpf_program.h"

#include <arpa/inet.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

constexpr std::size_t kVerifierLog = std::size_t{64} << 10;
constexpr std::size_t kLastWords = 200;

// A stack's bytes are compared as they lie in memory, whatever the order of the processor's bytes.
template <typename T>
std::int32_t AsLoaded(std::string_view bytes) {
  T value{};
  bytes.copy(reinterpret_cast<char*>(&value), sizeof(value));
  return static_cast<std::int32_t>(value);
}

}  // namespace

BpfProgram::BpfProgram() {
  Add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_1, 0, 0);
}

BpfProgram::Label BpfProgram::NewLabel() {
  bound_.push_back(0);
  return Label(bound_.size() - 1);
}

void BpfProgram::Bind(Label label) {
  bound_[label.number_] = instructions_.size();
}

void BpfProgram::Jump(Label label) {
  references_.emplace_back(instructions_.size(), label.number_);
  Add(BPF_JMP | BPF_JA, 0, 0, 0, 0);
}

void BpfProgram::LoadFrame(std::int32_t offset, std::int16_t place, std::int32_t size, Label otherwise) {
  Add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_1, BPF_REG_6, 0, 0);
  Add(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, offset);
  Add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_10, 0, 0);
  Add(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_3, 0, 0, place);
  Add(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_4, 0, 0, size);
  Add(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_load_bytes);
  references_.emplace_back(instructions_.size(), otherwise.number_);
  Add(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_0, 0, 0, 0);
}

void BpfProgram::RequireZeroField(std::int16_t offset, Label otherwise) {
  Add(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_1, BPF_REG_6, offset, 0);
  Compare(BPF_JNE, 0, otherwise);
}

void BpfProgram::RequireBytes(std::int16_t place, std::string_view bytes, Label otherwise) {
  while (!bytes.empty()) {
    std::int16_t taken = 1;
    if (bytes.size() >= 4 && place % 4 == 0) {
      taken = 4;
      Load(BPF_W, place);
      Compare(BPF_JNE, AsLoaded<std::uint32_t>(bytes), otherwise);
    } else if (bytes.size() >= 2 && place % 2 == 0) {
      taken = 2;
      Load(BPF_H, place);
      Compare(BPF_JNE, AsLoaded<std::uint16_t>(bytes), otherwise);
    } else {
      RequireByte(place, static_cast<std::uint8_t>(bytes.front()), otherwise);
    }
    bytes.remove_prefix(static_cast<std::size_t>(taken));
    place = static_cast<std::int16_t>(place + taken);
  }
}

void BpfProgram::RequireByte(std::int16_t place, std::uint8_t value, Label otherwise) {
  Load(BPF_B, place);
  Compare(BPF_JNE, value, otherwise);
}

void BpfProgram::RequireMaskedPair(std::int16_t place, std::uint16_t mask, std::uint16_t value, Label otherwise) {
  Load(BPF_H, place);
  Add(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_1, 0, 0, htons(mask));
  Compare(BPF_JNE, htons(value), otherwise);
}

void BpfProgram::JumpIfByte(std::int16_t place, std::uint8_t value, Label there) {
  Load(BPF_B, place);
  Compare(BPF_JEQ, value, there);
}

void BpfProgram::Return(std::int32_t value) {
  Add(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, value);
  Add(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

std::vector<bpf_insn> BpfProgram::Finish() const {
  std::vector<bpf_insn> finished = instructions_;
  for (const auto& [jump, label] : references_) {
    finished[jump].off = static_cast<std::int16_t>(bound_[label] - jump - 1);
  }
  return finished;
}

void BpfProgram::Add(std::uint8_t code, std::uint8_t destination, std::uint8_t source, std::int16_t offset,
                     std::int32_t immediate) {
  bpf_insn instruction{};
  instruction.code = code;
  instruction.dst_reg = destination & 0xFU;
  instruction.src_reg = source & 0xFU;
  instruction.off = offset;
  instruction.imm = immediate;
  instructions_.push_back(instruction);
}

void BpfProgram::Load(std::uint8_t size, std::int16_t place) {
  Add(static_cast<std::uint8_t>(BPF_LDX | BPF_MEM | size), BPF_REG_1, BPF_REG_10, place, 0);
}

// Of the lower half: that of all 64 bits would extend the constant's sign.
void BpfProgram::Compare(std::uint8_t operation, std::int32_t value, Label label) {
  references_.emplace_back(instructions_.size(), label.number_);
  Add(static_cast<std::uint8_t>(BPF_JMP32 | BPF_K | operation), BPF_REG_1, 0, 0, value);
}

StatusOr<UniqueFd> LoadClassifier(const std::vector<bpf_insn>& program) {
  std::string log(kVerifierLog, '\0');
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_SCHED_CLS;
  attributes.insns = reinterpret_cast<std::uint64_t>(program.data());
  attributes.insn_cnt = static_cast<std::uint32_t>(program.size());
  attributes.license = reinterpret_cast<std::uint64_t>("Apache-2.0");
  const auto load = [&] {
    return UniqueFd(static_cast<int>(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes))));
  };
  UniqueFd loaded = load();
  if (loaded.valid()) return loaded;
  const int failure = errno;
  attributes.log_buf = reinterpret_cast<std::uint64_t>(log.data());
  attributes.log_size = kVerifierLog;
  attributes.log_level = 1;
  loaded = load();
  if (loaded.valid()) return loaded;
  log.resize(std::strlen(log.c_str()));
  const std::string words = log.size() > kLastWords ? log.substr(log.size() - kLastWords) : log;
  return ErrnoStatus(failure, absl::StrCat("load a BPF program", words.empty() ? "" : ": ", absl::CHexEscape(words)));
}

}  // namespace husk::sandbox
