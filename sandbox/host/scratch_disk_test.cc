#include "sandbox/host/scratch_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX's
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <stop_token>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/common/subprocess.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t kSize = std::uint64_t{1} << 30;

Context Soon() {
  return Context::Background().WithTimeout(std::chrono::seconds(120));
}

class ScratchDisk : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/scratch-XXXXXX";
    root_ = mkdtemp(name.data());
  }
  void TearDown() override { fs::remove_all(root_); }
  [[nodiscard]] std::size_t Files(const std::string& directory) const {
    const fs::path path = root_ + directory;
    if (!fs::exists(path)) return 0;
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }

  std::string root_;
};

TEST_F(ScratchDisk, IsASoundSparseExt4ThatOnlyItsOwnerReads) {
  ScratchDisks disks(root_ + "/templates");
  const std::string path = root_ + "/disk";
  const Status made = disks.Create(Soon(), path, kSize);
  ASSERT_TRUE(made.ok()) << made;
  struct stat info{};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(static_cast<std::uint64_t>(info.st_size), kSize);
  EXPECT_EQ(info.st_mode & 07777U, 0600U);
  EXPECT_LT(info.st_blocks * 512, 4 << 20) << "the copy is sparse";

  SubprocessOptions check;
  check.argv = {"/sbin/e2fsck", "-fn", path};
  const auto checked = RunSubprocess(Soon(), check);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->exit_code, 0) << checked->standard_output << checked->standard_error;

  SubprocessOptions dump;
  dump.argv = {"/sbin/dumpe2fs", "-h", path};
  const auto dumped = RunSubprocess(Soon(), dump);
  ASSERT_TRUE(dumped.ok()) << dumped.status();
  EXPECT_THAT(dumped->standard_output, testing::HasSubstr("Filesystem features:"));
  EXPECT_THAT(dumped->standard_output, testing::Not(testing::HasSubstr("has_journal")));
}

TEST_F(ScratchDisk, FormatsEachSizeOnce) {
  ScratchDisks disks(root_ + "/templates");
  std::vector<std::thread> threads;
  threads.reserve(6);
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      const auto size = i % 2 == 0 ? kSize : kSize / 2;
      EXPECT_TRUE(disks.Create(Soon(), absl::StrCat(root_, "/disk", i), size).ok());
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(Files("/templates"), 2U);
  // A later process uses the templates that are there: its formatter does not exist.
  EXPECT_TRUE(ScratchDisks(root_ + "/templates", "/nowhere/mke2fs").Create(Soon(), root_ + "/later", kSize).ok());
}

TEST_F(ScratchDisk, OverwritesWhatACrashLeft) {
  fs::create_directories(root_ + "/templates");
  std::ofstream(absl::StrCat(root_, "/templates/scratch-1-", kSize, ".ext4.unfinished")) << "half a file system";
  ScratchDisks disks(root_ + "/templates");
  EXPECT_TRUE(disks.Create(Soon(), root_ + "/disk", kSize).ok());
  EXPECT_EQ(Files("/templates"), 1U);
}

TEST_F(ScratchDisk, LeavesNothingWhenItFails) {
  ScratchDisks broken(root_ + "/templates", "/bin/false");
  const Status failed = broken.Create(Soon(), root_ + "/disk", kSize);
  EXPECT_THAT(failed.message(), testing::HasSubstr("/bin/false ended with 1"));
  EXPECT_FALSE(fs::exists(root_ + "/disk"));
  EXPECT_EQ(Files("/templates"), 0U);

  ScratchDisks disks(root_ + "/templates");
  ASSERT_TRUE(disks.Create(Soon(), root_ + "/disk", kSize).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(disks.Create(Soon(), root_ + "/disk", kSize)));
  EXPECT_TRUE(fs::exists(root_ + "/disk")) << "a file that was there is not ours to remove";
  EXPECT_TRUE(absl::IsNotFound(disks.Create(Soon(), root_ + "/missing/disk", kSize)));
}

TEST_F(ScratchDisk, RefusesSizesThatNoDiskHas) {
  ScratchDisks disks(root_ + "/templates");
  for (const std::uint64_t bad : {std::uint64_t{0}, kSize + 1, std::uint64_t{4096}, std::uint64_t{1} << 60}) {
    EXPECT_TRUE(absl::IsInvalidArgument(disks.Create(Soon(), root_ + "/disk", bad))) << bad;
  }
}

}  // namespace
}  // namespace husk::sandbox
