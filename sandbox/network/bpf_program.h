// Puts eBPF programs together: a dozen kinds of instructions, and labels that jumps go forward to.
#ifndef HUSK_SANDBOX_NETWORK_BPF_PROGRAM_H_
#define HUSK_SANDBOX_NETWORK_BPF_PROGRAM_H_

#include <linux/bpf.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::sandbox {

// A classifier of frames. It keeps its argument in register 6; offsets below zero are places on its stack.
class BpfProgram {
 public:
  class Label {
    friend class BpfProgram;
    explicit Label(std::size_t number) : number_(number) {}
    std::size_t number_;
  };

  BpfProgram();

  Label NewLabel();
  // Jumps to it come here.
  void Bind(Label label);
  void Jump(Label label);
  // Copies `size` bytes of the frame, from `offset` on, to the stack; to `otherwise` if the frame is shorter.
  void LoadFrame(std::int32_t offset, std::int16_t place, std::int32_t size, Label otherwise);
  // A member of __sk_buff of 32 bits that must be zero.
  void RequireZeroField(std::int16_t offset, Label otherwise);
  // The bytes at an even place on the stack must be these.
  void RequireBytes(std::int16_t place, std::string_view bytes, Label otherwise);
  // Of the byte, or of two bytes in the order of the network, only the bits of `mask` count.
  void RequireByte(std::int16_t place, std::uint8_t value, Label otherwise);
  void RequireMaskedPair(std::int16_t place, std::uint16_t mask, std::uint16_t value, Label otherwise);
  // Jumps if the byte is that one.
  void JumpIfByte(std::int16_t place, std::uint8_t value, Label there);
  void Return(std::int32_t value);

  // All labels must have been bound.
  [[nodiscard]] std::vector<bpf_insn> Finish() const;

 private:
  void Add(std::uint8_t code, std::uint8_t destination, std::uint8_t source, std::int16_t offset,
           std::int32_t immediate);
  void Load(std::uint8_t size, std::int16_t place);
  void Compare(std::uint8_t operation, std::int32_t value, Label label);

  std::vector<bpf_insn> instructions_;
  std::vector<std::size_t> bound_;                               // by label
  std::vector<std::pair<std::size_t, std::size_t>> references_;  // jump, label
};

// The kernel's copy of the program, which lives as long as somebody uses it. The error has the verifier's last words.
StatusOr<UniqueFd> LoadClassifier(const std::vector<bpf_insn>& program);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_BPF_PROGRAM_H_
