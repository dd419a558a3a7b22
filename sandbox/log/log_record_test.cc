#include "sandbox/log/log_record.h"

#include <gtest/gtest.h>

namespace husk::sandbox {
namespace {

std::string Record(LogStream stream, bool partial, std::string_view content, std::int64_t now) {
  std::string out;
  RecordWriter(stream, now).Append(out, partial, content);
  return out;
}

TEST(LogRecord, IsTheCriFormat) {
  EXPECT_EQ(Record(LogStream::kStdout, false, "hello", 1'475'713'029'669'794'202),
            "2016-10-06T00:17:09.669794202Z stdout F hello\n");
  EXPECT_EQ(Record(LogStream::kStderr, true, "", 6), "1970-01-01T00:00:00.000000006Z stderr P \n");
}

TEST(LogRecord, CountsTheStreamsBytes) {
  const auto parse = [](std::string line) {
    line.pop_back();
    return ParseRecord(line);
  };
  EXPECT_EQ(parse(Record(LogStream::kStdout, false, "hello", 1))->stream_bytes, 6U);
  EXPECT_EQ(parse(Record(LogStream::kStdout, true, "hello", 1))->stream_bytes, 5U);
  EXPECT_EQ(parse(Record(LogStream::kStderr, false, "", 1))->stream_bytes, 1U);
  EXPECT_EQ(parse(Record(LogStream::kStderr, false, "", 1))->stream, LogStream::kStderr);
}

// AGT-04: what a container writes cannot look like a record of its own.
TEST(LogRecord, AGT04_ForgedTagsAreContent) {
  const std::string forged = "2016-10-06T00:17:09Z stderr P x";
  const std::string line = Record(LogStream::kStdout, false, forged, 1);
  const auto record = ParseRecord(line.substr(0, line.size() - 1));
  EXPECT_EQ(record->stream, LogStream::kStdout);
  EXPECT_EQ(record->stream_bytes, forged.size() + 1);
}

TEST(LogRecord, RefusesWhatIsNoRecord) {
  for (const char* line : {"", "hello", "t stdin F x", "t stdout X x", "t stdout F", " stdout F x", "t stdout Fx"}) {
    EXPECT_FALSE(ParseRecord(line).has_value()) << line;
  }
}

}  // namespace
}  // namespace husk::sandbox
