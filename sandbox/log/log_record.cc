#include "sandbox/log/log_record.h"

#include <array>
#include <cstdio>
#include <ctime>

namespace husk::sandbox {

RecordWriter::RecordWriter(LogStream stream, std::int64_t now) {
  constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;
  const std::time_t seconds = now / kNanosecondsPerSecond;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  // RFC3339Nano: "2026-01-02T03:04:05.000000006Z".
  std::array<char, 64> head{};
  const std::size_t date = std::strftime(head.data(), head.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  full_.assign(head.data(), date);
  const int rest = std::snprintf(head.data(), head.size(), ".%09dZ %s ", static_cast<int>(now % kNanosecondsPerSecond),
                                 stream == LogStream::kStdout ? "stdout" : "stderr");
  full_.append(head.data(), static_cast<std::size_t>(rest));
  partial_ = full_ + "P ";
  full_ += "F ";
}

void RecordWriter::Append(std::string& out, bool partial, std::string_view content) const {
  out.append(partial ? partial_ : full_);
  out.append(content);
  out.push_back('\n');
}

std::optional<ParsedRecord> ParseRecord(std::string_view line) {
  const auto time_end = line.find(' ');
  if (time_end == std::string_view::npos || time_end == 0) return std::nullopt;
  line.remove_prefix(time_end + 1);
  constexpr std::string_view kTagExample = "stdout F ";
  if (line.size() < kTagExample.size()) return std::nullopt;
  ParsedRecord record;
  const std::string_view stream = line.substr(0, 7);
  if (stream == "stderr ") {
    record.stream = LogStream::kStderr;
  } else if (stream != "stdout ") {
    return std::nullopt;
  }
  const char tag = line[7];
  if ((tag != 'F' && tag != 'P') || line[8] != ' ') return std::nullopt;
  record.stream_bytes = line.size() - kTagExample.size() + (tag == 'F' ? 1 : 0);
  return record;
}

}  // namespace husk::sandbox
