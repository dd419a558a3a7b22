// What a guest says of its processes' output: pieces that overlap, leave gaps, forge records and never end. Whatever
// comes, each line of the log is one record, and together they are the streams' bytes.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>

#include "agent/common/fuzz_require.h"
#include "sandbox/log/container_log.h"
#include "sandbox/log/log_record.h"

namespace husk::sandbox {
namespace {

constexpr std::int64_t kNow = 1'700'000'000'123'456'789;
constexpr std::string_view kTime = "2023-11-14T22:13:20.123456789Z ";
constexpr std::size_t kMaximumBytes = std::size_t{256} << 10;

// One for the process, which lasts until its exit handlers have run; its place changes nothing in the log.
const std::string& Directory() {
  static const std::string* const directory = [] {
    std::string pattern = (std::filesystem::temp_directory_path() / "husk-fuzz-log-XXXXXX").string();
    fuzz::Require(mkdtemp(pattern.data()) != nullptr, "a directory for the log");
    static_cast<void>(std::atexit([] { std::filesystem::remove_all(Directory()); }));
    return new std::string(pattern);
  }();
  return *directory;
}

// A stream as the guest could have meant it, by offset.
struct Stream {
  std::string bytes;
  bool ended = false;
};

class Guest {
 public:
  explicit Guest(ContainerLog& log) : log_(log) {}

  void Step(fuzz::Script& script) {
    const std::uint8_t kind = script.Byte();
    const LogStream stream = (kind & 1) != 0 ? LogStream::kStderr : LogStream::kStdout;
    Stream& meant = streams_[kind & 1];
    if (meant.ended) return;
    const std::uint64_t next = log_.next_offset(stream);
    fuzz::Require(next == meant.bytes.size(), "each byte is taken once");
    std::string data =
        (kind & 2) != 0 ? std::string(std::size_t{script.Byte()} * 100, 'x') : std::string(script.Text());
    const std::uint64_t back = (kind & 4) != 0 ? script.Byte() : 0;
    std::uint64_t offset = next - std::min(next, back);
    if ((kind & 8) != 0) offset = next + 1 + script.Byte();
    const bool end = (kind & 0x30) == 0x30;
    const Status status = log_.Append(stream, offset, data, end, kNow);
    if (offset > next) {
      fuzz::RequireSoundError(status);
      return;
    }
    fuzz::Require(status.ok(), "what follows is taken");
    const std::uint64_t known = next - offset;
    if (known < data.size()) meant.bytes += data.substr(known);
    meant.ended = end;
  }

  void End() {
    for (std::size_t i = 0; i < streams_.size(); ++i) {
      if (streams_[i].ended) continue;
      const LogStream stream = i == 1 ? LogStream::kStderr : LogStream::kStdout;
      fuzz::Require(log_.Append(stream, log_.next_offset(stream), "", true, kNow).ok(), "a stream ends");
    }
  }

  [[nodiscard]] std::size_t size() const { return streams_[0].bytes.size() + streams_[1].bytes.size(); }
  [[nodiscard]] const std::string& bytes(std::size_t index) const { return streams_[index].bytes; }

 private:
  ContainerLog& log_;
  std::array<Stream, 2> streams_;
};

// The streams as a reader of the log puts them together.
std::array<std::string, 2> ReadLog(std::string_view log) {
  std::array<std::string, 2> streams;
  fuzz::Require(log.empty() || log.back() == '\n', "the last record is whole");
  while (!log.empty()) {
    const std::string_view line = log.substr(0, log.find('\n'));
    log.remove_prefix(line.size() + 1);
    fuzz::Require(line.starts_with(kTime), "a record begins with its time");
    const auto record = ParseRecord(line);
    fuzz::Require(record.has_value(), "a line is a record");
    const std::string_view content = line.substr(kTime.size() + std::string_view("stdout F ").size());
    fuzz::Require(content.size() <= kMaximumRecordContent, "a record is not too long");
    std::string& stream = streams[record->stream == LogStream::kStderr ? 1 : 0];
    stream += content;
    if (line[kTime.size() + 7] == 'F') stream += '\n';
  }
  return streams;
}

void Run(fuzz::Script script) {
  const std::string path = Directory() + "/0.log";
  unlink(path.c_str());
  auto log = OpenContainerLog(Directory(), "0.log", {});
  fuzz::Require(log.ok(), "the log opens");
  Guest guest(**log);
  while (!script.empty() && guest.size() < kMaximumBytes) guest.Step(script);
  guest.End();
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const auto streams = ReadLog(text);
  fuzz::Require(streams[0] == guest.bytes(0) && streams[1] == guest.bytes(1), "the records are the streams' bytes");
}

}  // namespace
}  // namespace husk::sandbox

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::sandbox::Run(husk::fuzz::Script(data, size));
  return 0;
}
