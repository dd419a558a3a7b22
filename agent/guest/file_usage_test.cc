#include "agent/guest/file_usage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

namespace husk::agent {
namespace {

namespace fs = std::filesystem;

class FileUsageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &mask, nullptr), 0);
    std::string pattern = fs::temp_directory_path() / "husk-usage-XXXXXX";
    base_ = mkdtemp(pattern.data());
    auto loop = EventLoop::Create();
    ASSERT_TRUE(loop.ok());
    loop_ = *std::move(loop);
    children_ = std::make_unique<Children>(*loop_);
  }
  void TearDown() override { fs::remove_all(base_); }

  void WriteFile(const std::string& name, std::size_t bytes) const {
    std::ofstream(base_ + "/" + name) << std::string(bytes, 'x');
  }
  static TreeUsage Measure(const std::string& path) {
    const auto usage = MeasureTree(path, std::chrono::minutes(1));
    EXPECT_TRUE(usage.ok()) << usage.status();
    return usage.value_or(TreeUsage());
  }
  // Until Update's answer.
  void Update(FileUsageMeter& meter, const std::vector<std::string>& paths) {
    bool answered = false;
    meter.Update(paths, [&answered] { answered = true; });
    Await([&answered] { return answered; });
  }
  void Await(const std::function<bool()>& condition) {
    while (!condition()) {
      loop_->After(std::chrono::milliseconds(5), [this] { loop_->Stop(); });
      loop_->Run();
    }
  }

  std::string base_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Children> children_;
};

TEST_F(FileUsageTest, CountsBlocksAndInodes) {
  const TreeUsage empty = Measure(base_);
  EXPECT_EQ(empty.inodes, 1U);
  fs::create_directories(base_ + "/a/b");
  WriteFile("a/b/file", 1 << 20);
  ASSERT_EQ(symlink("/", (base_ + "/a/link").c_str()), 0);
  const TreeUsage full = Measure(base_);
  EXPECT_EQ(full.inodes, 5U);
  EXPECT_GE(full.used_bytes, empty.used_bytes + (1U << 20));
  EXPECT_LT(full.used_bytes, empty.used_bytes + (1U << 20) + (1U << 17));
  EXPECT_FALSE(MeasureTree(base_ + "/none", std::chrono::minutes(1)).ok());
}

TEST_F(FileUsageTest, AFileWithSeveralNamesCountsOnceAndAHoleNotAtAll) {
  WriteFile("file", 3 << 20);
  fs::create_hard_link(base_ + "/file", base_ + "/second");
  fs::create_hard_link(base_ + "/file", base_ + "/third");
  const int hole = open((base_ + "/hole").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  ASSERT_EQ(ftruncate(hole, 1 << 30), 0);
  close(hole);
  const TreeUsage usage = Measure(base_);
  EXPECT_EQ(usage.inodes, 3U);
  EXPECT_GE(usage.used_bytes, 3U << 20);
  EXPECT_LT(usage.used_bytes, (3U << 20) + (1U << 17));
}

TEST_F(FileUsageTest, DepthIsBounded) {
  constexpr int kDepth = 1100;
  int directory = open(base_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int level = 0; level < kDepth; ++level) {
    ASSERT_EQ(mkdirat(directory, "d", 0700), 0);
    const int below = openat(directory, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(directory);
    directory = below;
  }
  close(directory);
  EXPECT_EQ(Measure(base_).inodes, 1001U);
}

TEST_F(FileUsageTest, TheWalkHasALimit) {
  for (int i = 0; i < 300; ++i) WriteFile(std::to_string(i), 0);
  EXPECT_TRUE(absl::IsDeadlineExceeded(MeasureTree(base_, std::chrono::seconds(-1)).status()));
}

TEST_F(FileUsageTest, ABusyGuestsFiguresDoNotGrowOld) {
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  EXPECT_EQ(RestAfterWalk(milliseconds(1)), seconds(5));
  EXPECT_EQ(RestAfterWalk(seconds(1)), seconds(20));
  EXPECT_EQ(RestAfterWalk(seconds(10)), seconds(60));
  EXPECT_EQ(RestAfterWalk(seconds(90)), seconds(180));
}

TEST_F(FileUsageTest, TheMeterKeepsFiguresOfEachTree) {
  FileUsageMeter meter(*loop_, *children_, {"/bin/sh", "-c", "for path; do echo \"${#path} 7\"; done", "sh"});
  EXPECT_FALSE(meter.usage("/abc").has_value());
  Update(meter, {"/abc"});
  ASSERT_TRUE(meter.usage("/abc").has_value());
  EXPECT_EQ(meter.usage("/abc")->used_bytes(), 4U);
  EXPECT_EQ(meter.usage("/abc")->inodes(), 7U);
  // A new tree is measured although it is not time for the others; one that is not named any more is forgotten.
  Update(meter, {"/abcdef"});
  EXPECT_EQ(meter.usage("/abcdef")->used_bytes(), 7U);
  EXPECT_FALSE(meter.usage("/abc").has_value());
}

TEST_F(FileUsageTest, WhatCannotBeMeasuredHasNoFigureAndIsNotTriedAtOnceAgain) {
  const std::string script = "echo run >> " + base_ + "/runs; echo -; echo '1 2'; exit 1";
  FileUsageMeter meter(*loop_, *children_, {"/bin/sh", "-c", script, "sh"});
  Update(meter, {"/a", "/b", "/c"});
  EXPECT_FALSE(meter.usage("/a").has_value());
  EXPECT_EQ(meter.usage("/b")->inodes(), 2U);
  EXPECT_FALSE(meter.usage("/c").has_value());
  Update(meter, {"/a", "/b", "/c"});
  EXPECT_EQ(fs::file_size(base_ + "/runs"), 4U);
}

TEST_F(FileUsageTest, ASlowWalkIsNotWaitedFor) {
  FileUsageMeter meter(*loop_, *children_, {"/bin/sh", "-c", "read line < " + base_ + "/gate; echo 1 1", "sh"});
  ASSERT_EQ(mkfifo((base_ + "/gate").c_str(), 0600), 0);
  Update(meter, {"/a"});  // answered by its timer
  EXPECT_FALSE(meter.usage("/a").has_value());
  std::ofstream(base_ + "/gate") << "go\n";
  Update(meter, {"/a"});
  Await([&meter] { return meter.usage("/a").has_value(); });
}

}  // namespace
}  // namespace husk::agent
