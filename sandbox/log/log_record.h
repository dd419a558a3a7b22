// One line of a container's log file, as bytes.
#ifndef HUSK_SANDBOX_LOG_LOG_RECORD_H_
#define HUSK_SANDBOX_LOG_LOG_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sandbox/log/container_log.h"

namespace husk::sandbox {

// The longest content of a record: what the kubelet and its log readers are used to.
inline constexpr std::size_t kMaximumRecordContent = 16384;

// Makes records of one moment, whose beginnings are the same.
class RecordWriter {
 public:
  RecordWriter(LogStream stream, std::int64_t now);
  // Appends "<now> stdout|stderr F|P <content>\n" to `out`. `content` has no newline.
  void Append(std::string& out, bool partial, std::string_view content) const;

 private:
  std::string full_;
  std::string partial_;
};

struct ParsedRecord {
  LogStream stream = LogStream::kStdout;
  // Bytes of the stream that it stands for: its content, and the newline of a full record.
  std::uint64_t stream_bytes = 0;
};

// `line` is without its newline. nullopt if it is no record of ours.
std::optional<ParsedRecord> ParseRecord(std::string_view line);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_LOG_LOG_RECORD_H_
