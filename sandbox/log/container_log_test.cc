#include "sandbox/log/container_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "agent/common/unique_fd.h"
#include "sandbox/log/log_record.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;
using testing::Test;

class ContainerLogTest : public Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "husk-log-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { fs::remove_all(directory_); }

  std::unique_ptr<ContainerLog> Open(const LogCheckpoint& checkpoint = {}, const std::string& path = "0.log") {
    auto log = OpenContainerLog(directory_.string(), path, checkpoint);
    EXPECT_TRUE(log.ok()) << log.status();
    return log.ok() ? std::move(*log) : nullptr;
  }
  Status OpenError(const std::string& path) { return OpenContainerLog(directory_.string(), path, {}).status(); }

  [[nodiscard]] std::string Read(const std::string& name = "0.log") const {
    std::ifstream file(directory_ / name, std::ios::binary);
    std::ostringstream all;
    all << file.rdbuf();
    return all.str();
  }

  // The stream as a log reader puts it together again.
  [[nodiscard]] static std::string Content(const std::string& file, const std::string& stream) {
    std::istringstream lines(file);
    std::string out;
    for (std::string line; std::getline(lines, line);) {
      const auto begin = line.find(' ') + 1;
      if (line.compare(begin, 7, stream + " ") != 0) continue;
      out += line.substr(begin + 9);
      if (line[begin + 7] == 'F') out += '\n';
    }
    return out;
  }

  fs::path directory_;
};

TEST_F(ContainerLogTest, WritesWholeLinesAndKeepsTheRest) {
  auto log = Open();
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "one\ntwo\nthr", false, 7).ok());
  EXPECT_EQ(Read(),
            "1970-01-01T00:00:00.000000007Z stdout F one\n"
            "1970-01-01T00:00:00.000000007Z stdout F two\n");
  EXPECT_EQ(log->stored_offset(LogStream::kStdout), 8U);
  EXPECT_EQ(log->next_offset(LogStream::kStdout), 11U);
  ASSERT_TRUE(log->Append(LogStream::kStdout, 11, "ee\n", false, 8).ok());
  EXPECT_EQ(Content(Read(), "stdout"), "one\ntwo\nthree\n");
  EXPECT_EQ(log->stored_offset(LogStream::kStdout), 14U);
}

TEST_F(ContainerLogTest, StreamsAreApart) {
  auto log = Open();
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "out", false, 1).ok());
  ASSERT_TRUE(log->Append(LogStream::kStderr, 0, "err\n", false, 1).ok());
  ASSERT_TRUE(log->Append(LogStream::kStdout, 3, "\n", false, 1).ok());
  EXPECT_EQ(Content(Read(), "stdout"), "out\n");
  EXPECT_EQ(Content(Read(), "stderr"), "err\n");
}

TEST_F(ContainerLogTest, ALongLineIsCutIntoPartialRecords) {
  auto log = Open();
  const std::string line = std::string(2 * kMaximumRecordContent + 5, 'x') + "\n";
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, line, false, 1).ok());
  EXPECT_EQ(Content(Read(), "stdout"), line);
  const std::string file = Read();
  EXPECT_EQ(std::count(file.begin(), file.end(), '\n'), 3);
}

TEST_F(ContainerLogTest, ALineOfExactlyTheLimitIsOneRecord) {
  auto log = Open();
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, std::string(kMaximumRecordContent, 'x'), false, 1).ok());
  EXPECT_EQ(Read(), "");
  ASSERT_TRUE(log->Append(LogStream::kStdout, kMaximumRecordContent, "\n", false, 1).ok());
  EXPECT_NE(Read().find(" F x"), std::string::npos);
}

TEST_F(ContainerLogTest, TheLastLineNeedsNoNewline) {
  auto log = Open();
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "prompt> ", false, 1).ok());
  ASSERT_TRUE(log->Append(LogStream::kStdout, 8, "", true, 1).ok());
  EXPECT_EQ(Content(Read(), "stdout"), "prompt> ");
  EXPECT_EQ(log->stored_offset(LogStream::kStdout), 8U);
}

TEST_F(ContainerLogTest, SkipsWhatItHasAndRefusesGaps) {
  auto log = Open();
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "one\ntw", false, 1).ok());
  ASSERT_TRUE(log->Append(LogStream::kStdout, 2, "e\ntwo\n", false, 1).ok());
  EXPECT_EQ(Content(Read(), "stdout"), "one\ntwo\n");
  EXPECT_EQ(log->Append(LogStream::kStdout, 9, "x", false, 1).code(), absl::StatusCode::kOutOfRange);
}

TEST_F(ContainerLogTest, ReopenGoesOnInANewFile) {
  auto log = Open();
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "one\ntw", false, 1).ok());
  fs::rename(directory_ / "0.log", directory_ / "0.log.20260101");
  ASSERT_TRUE(log->Reopen().ok());
  ASSERT_TRUE(log->Append(LogStream::kStdout, 6, "o\n", false, 1).ok());
  EXPECT_EQ(Content(Read("0.log.20260101"), "stdout"), "one\n");
  EXPECT_EQ(Content(Read(), "stdout"), "two\n");
}

TEST_F(ContainerLogTest, MakesTheDirectoriesOfItsPath) {
  auto log = Open({}, "app/0.log");
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "x\n", false, 1).ok());
  EXPECT_EQ(Content(Read("app/0.log"), "stdout"), "x\n");
  struct stat attributes{};
  ASSERT_EQ(stat((directory_ / "app/0.log").c_str(), &attributes), 0);
  EXPECT_EQ(attributes.st_mode & 07777U, 0640U);
}

TEST_F(ContainerLogTest, CRI03_PathsThatLeaveTheDirectory) {
  for (const char* path : {"/etc/x.log", "../x.log", "a/../../x.log", "", "a/", "./x.log"}) {
    EXPECT_EQ(OpenError(path).code(), absl::StatusCode::kInvalidArgument) << path;
  }
  EXPECT_NE(OpenError("../x.log").message().find("../x.log"), absl::string_view::npos);
}

TEST_F(ContainerLogTest, CRI03_SymlinksAndOtherFiles) {
  fs::create_symlink("/etc/passwd", directory_ / "link.log");
  fs::create_directory_symlink("/tmp", directory_ / "linked");
  fs::create_directory(directory_ / "dir.log");
  ASSERT_EQ(mkfifo((directory_ / "fifo.log").c_str(), 0600), 0);
  EXPECT_EQ(OpenError("link.log").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(OpenError("linked/x.log").ok());
  EXPECT_FALSE(fs::exists("/tmp/x.log"));
  EXPECT_FALSE(OpenError("dir.log").ok());
  EXPECT_EQ(OpenError("fifo.log").code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ContainerLogTest, CRI03_ASymlinkPutThereBeforeAReopen) {
  auto log = Open();
  fs::rename(directory_ / "0.log", directory_ / "0.log.old");
  fs::create_symlink(directory_ / "target", directory_ / "0.log");
  EXPECT_EQ(log->Reopen().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(fs::exists(directory_ / "target"));
  // It goes on in the file that it has.
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "still\n", false, 1).ok());
  EXPECT_EQ(Content(Read("0.log.old"), "stdout"), "still\n");
}

TEST_F(ContainerLogTest, AFullDiskLeavesNoHalfRecord) {
  // A limit on the file's size stands in for the full disk: the first part of the record fits, the rest does not.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  auto log = Open();
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "fits\n", false, 1).ok());
  const std::string good = Read();
  struct sigaction ignore{};
  struct sigaction old{};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &ignore, &old);
  rlimit small{.rlim_cur = good.size() + 10, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status full = log->Append(LogStream::kStdout, 5, "does not fit\n", false, 1);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  sigaction(SIGXFSZ, &old, nullptr);
  EXPECT_FALSE(full.ok());
  EXPECT_EQ(Read(), good);
  EXPECT_EQ(log->next_offset(LogStream::kStdout), 5U);
  ASSERT_TRUE(log->Append(LogStream::kStdout, 5, "does not fit\n", false, 1).ok());
  EXPECT_EQ(Content(Read(), "stdout"), "fits\ndoes not fit\n");
}

TEST_F(ContainerLogTest, AChunkOfManyBatchesIsInTheLogOrNot) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  auto log = Open();
  // Records of 41 bytes: more than three batches of a mebibyte, of which one or two fit.
  const std::string lines(100'000, '\n');
  struct sigaction ignore{};
  struct sigaction old{};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &ignore, &old);
  rlimit small{.rlim_cur = rlim_t{2'500'000}, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status full = log->Append(LogStream::kStdout, 0, lines, false, 1);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  sigaction(SIGXFSZ, &old, nullptr);
  EXPECT_FALSE(full.ok());
  EXPECT_EQ(Read(), "");
  EXPECT_EQ(log->next_offset(LogStream::kStdout), 0U);
  ASSERT_TRUE(log->Append(LogStream::kStdout, 0, lines, false, 1).ok());
  EXPECT_EQ(Content(Read(), "stdout"), lines);
  EXPECT_EQ(log->checkpoint().size, 41 * lines.size());
}

TEST_F(ContainerLogTest, GoesOnAfterARestart) {
  LogCheckpoint checkpoint;
  {
    auto log = Open();
    checkpoint = log->checkpoint();
    ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "one\ntwo\nthr", false, 1).ok());
  }
  auto log = Open(checkpoint);
  EXPECT_EQ(log->next_offset(LogStream::kStdout), 8U);
  ASSERT_TRUE(log->Append(LogStream::kStdout, 8, "three\n", false, 1).ok());
  EXPECT_EQ(Content(Read(), "stdout"), "one\ntwo\nthree\n");
}

TEST_F(ContainerLogTest, FindsItsFileAfterItWasRenamed) {
  LogCheckpoint checkpoint;
  {
    auto log = Open();
    checkpoint = log->checkpoint();
    ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "one\n", false, 1).ok());
  }
  fs::rename(directory_ / "0.log", directory_ / "0.log.20260101");
  auto log = Open(checkpoint);
  EXPECT_EQ(log->next_offset(LogStream::kStdout), 4U);
  EXPECT_EQ(Read(), "");
}

TEST_F(ContainerLogTest, CountsTheNewFileToo) {
  LogCheckpoint checkpoint;
  {
    auto log = Open();
    checkpoint = log->checkpoint();
    ASSERT_TRUE(log->Append(LogStream::kStdout, 0, "one\n", false, 1).ok());
    fs::rename(directory_ / "0.log", directory_ / "0.log.20260101");
    ASSERT_TRUE(log->Reopen().ok());
    ASSERT_TRUE(log->Append(LogStream::kStdout, 4, "two\n", false, 1).ok());
  }
  EXPECT_EQ(Open(checkpoint)->next_offset(LogStream::kStdout), 8U);
}

// A crash may cut the file at any byte behind the last checkpoint. What a restarted log then takes makes it whole.
TEST_F(ContainerLogTest, LosesAndRepeatsNothingWhereverACrashCutsTheFile) {
  std::mt19937 random(20260101);
  for (int round = 0; round < 200; ++round) {
    std::string stream;
    for (int line = 0; line < 40; ++line) {
      stream += std::string(random() % (line % 10 == 0 ? 40000 : 60), static_cast<char>('a' + line % 26)) + "\n";
    }
    stream += "no newline at the end";
    const std::string name = std::to_string(round) + ".log";
    LogCheckpoint checkpoint;
    std::uint64_t full_size = 0;
    {
      auto log = Open({}, name);
      checkpoint = log->checkpoint();
      for (std::size_t at = 0; at < stream.size();) {
        const std::size_t length = std::min<std::size_t>(stream.size() - at, 1 + random() % 30000);
        const bool end = at + length == stream.size() && random() % 2 == 0;
        ASSERT_TRUE(log->Append(LogStream::kStdout, at, std::string_view(stream).substr(at, length), end, 1).ok());
        at += length;
        if (random() % 20 == 0) checkpoint = log->checkpoint();
      }
      full_size = fs::file_size(directory_ / name);
    }
    fs::resize_file(directory_ / name, checkpoint.size + random() % (full_size - checkpoint.size + 1));
    auto log = Open(checkpoint, name);
    const std::uint64_t from = log->next_offset(LogStream::kStdout);
    ASSERT_TRUE(log->Append(LogStream::kStdout, from, std::string_view(stream).substr(from), true, 2).ok());
    ASSERT_EQ(Content(Read(name), "stdout"), stream);
  }
}

TEST_F(ContainerLogTest, ADiscardingLogCountsOnly) {
  auto log = NewDiscardingLog({.stdout_offset = 5});
  ASSERT_TRUE(log->Append(LogStream::kStdout, 3, "abcd", true, 1).ok());
  EXPECT_EQ(log->stored_offset(LogStream::kStdout), 7U);
  EXPECT_EQ(log->checkpoint().stdout_offset, 7U);
}

}  // namespace
}  // namespace husk::sandbox
