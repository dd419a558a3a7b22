#include "cri/huskctl/log_reader.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace husk::huskctl {
namespace {

TEST(LogReader, ReadsRecordsOfTheCri) {
  const auto full = LogReader::ParseRecord("2026-01-01T00:00:00.000000001Z stdout F two  words ");
  ASSERT_TRUE(full.ok());
  EXPECT_FALSE(full->is_stderr);
  EXPECT_FALSE(full->is_partial);
  EXPECT_EQ(full->content, "two  words ");
  const auto part = LogReader::ParseRecord("t stderr P ");
  ASSERT_TRUE(part.ok());
  EXPECT_TRUE(part->is_stderr && part->is_partial);
  EXPECT_EQ(part->content, "");
  for (const char* bad : {"", "t", "t stdout", "t stdin F x", "t stdout Q x", "just a line"}) {
    EXPECT_EQ(LogReader::ParseRecord(bad).status().code(), absl::StatusCode::kDataLoss) << bad;
  }
}

TEST(LogReader, FollowsAFileThroughItsRotation) {
  std::string directory = std::filesystem::temp_directory_path() / "husk-log-reader-XXXXXX";
  ASSERT_NE(mkdtemp(directory.data()), nullptr);
  const std::string path = directory + "/0.log";
  LogReader reader(path, "c: ");
  testing::internal::CaptureStdout();
  EXPECT_TRUE(reader.Pump().ok());  // no file yet
  std::ofstream(path) << "t stdout F one\nt stdout P tw";
  EXPECT_TRUE(reader.Pump().ok());
  std::ofstream(path, std::ios::app) << "o\nt stdout F  and a half\n";
  EXPECT_TRUE(reader.Pump().ok());
  std::ofstream(path, std::ios::app) << "t stdout F three\n";
  std::filesystem::rename(path, path + ".1");
  std::ofstream(path) << "t stdout F four\n";
  EXPECT_TRUE(reader.Pump().ok());
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "c: one\nc: two and a half\nc: three\nc: four\n");
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace husk::huskctl
