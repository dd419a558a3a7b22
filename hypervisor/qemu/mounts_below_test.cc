#include "hypervisor/qemu/mounts_below.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"

namespace husk::hypervisor {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

Mount At(const std::string& path, const std::string& device) {
  Mount mount;
  mount.mount_point = path;
  mount.device = device;
  return mount;
}

TEST(MountsBelowTest, TheTopmostOfEachPathStrictlyBelow) {
  const std::vector<Mount> table = {At("/", "1"), At("/a", "2"), At("/a/b", "3"), At("/ab/c", "4"), At("/a/b", "5")};
  const auto below = MountsBelow(table, "/a");
  ASSERT_EQ(below.size(), 1U);
  EXPECT_EQ(below.at("b").device, "5");
  EXPECT_THAT(MountsBelow(table, "/"),
              UnorderedElementsAre(Pair("a", testing::_), Pair("a/b", testing::_), Pair("ab/c", testing::_)));
}

// Mounts of the host are made in a namespace of the test's own, and a process that stands for the file server has
// another one, whose root is the directory alone.
class FollowMountsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0) GTEST_SKIP() << "needs the right to mount";
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    std::string pattern = (fs::temp_directory_path() / "husk-mounts-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    ASSERT_EQ(mount("test", root_.c_str(), "tmpfs", 0, nullptr), 0);
    // Shared, as a systemd host has it.
    ASSERT_EQ(mount(nullptr, root_.c_str(), nullptr, MS_SHARED, nullptr), 0);
    directory_ = root_ + "/directory";
    fs::create_directories(directory_ + "/sub/deep");
    fs::create_directories(directory_ + "/other");
    StartServer();
  }
  void TearDown() override {
    if (server_ > 0) {
      kill(server_, SIGKILL);
      waitpid(server_, nullptr, 0);
    }
    if (root_.empty()) return;
    umount2(root_.c_str(), MNT_DETACH);
    fs::remove_all(root_);
  }

  void StartServer() {
    std::array<int, 2> ready{};
    ASSERT_EQ(pipe2(ready.data(), O_CLOEXEC), 0);
    server_ = fork();
    ASSERT_GE(server_, 0);
    if (server_ == 0) {
      const int share = open_tree(AT_FDCWD, directory_.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
      mount_attr change{};
      change.propagation = MS_PRIVATE;
      const bool entered =
          share >= 0 && mount_setattr(share, "", AT_EMPTY_PATH, &change, sizeof change) == 0 &&
          unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
          move_mount(share, "", AT_FDCWD, root_.c_str(), MOVE_MOUNT_F_EMPTY_PATH) == 0 && fchdir(share) == 0 &&
          syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0;
      if (!entered || write(ready[1], "x", 1) != 1) _exit(1);
      for (;;) pause();
    }
    close(ready[1]);
    char byte = 0;
    EXPECT_EQ(read(ready[0], &byte, 1), 1) << "the server could not make its namespace";
    close(ready[0]);
  }

  void MountTmpfs(const std::string& below, const std::string& content) const {
    const std::string path = directory_ + "/" + below;
    ASSERT_EQ(mount("test", path.c_str(), "tmpfs", 0, nullptr), 0) << below;
    std::ofstream(path + "/content") << content;
  }
  [[nodiscard]] int Unmount(const std::string& below) const { return umount2((directory_ + "/" + below).c_str(), 0); }
  std::vector<std::string> Follow(bool read_only = false) const {
    std::vector<std::string> gone;
    const Status followed =
        FollowMountsInNamespace(server_, {.tag = "t", .path = directory_, .read_only = read_only}, gone);
    EXPECT_TRUE(followed.ok()) << followed;
    return gone;
  }
  // As the server sees it.
  [[nodiscard]] std::string Seen(const std::string& below) const {
    std::ifstream file(absl::StrCat("/proc/", server_, "/root/", below));
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::string root_;
  std::string directory_;
  pid_t server_ = -1;
};

TEST_F(FollowMountsTest, WhatIsMountedLaterAppearsAndGoes) {
  EXPECT_THAT(Follow(), IsEmpty());
  ASSERT_NO_FATAL_FAILURE(MountTmpfs("sub", "one"));
  EXPECT_EQ(Seen("sub/content"), "") << "nothing comes by itself";
  EXPECT_THAT(Follow(), IsEmpty());
  EXPECT_EQ(Seen("sub/content"), "one");
  EXPECT_THAT(Follow(), IsEmpty()) << "nothing has changed";

  // Another one on the same path, and one below it.
  ASSERT_EQ(Unmount("sub"), 0);
  ASSERT_NO_FATAL_FAILURE(MountTmpfs("sub", "two"));
  fs::create_directory(directory_ + "/sub/inner");
  ASSERT_NO_FATAL_FAILURE(MountTmpfs("sub/inner", "three"));
  EXPECT_THAT(Follow(), ElementsAre("sub"));
  EXPECT_EQ(Seen("sub/content"), "two");
  EXPECT_EQ(Seen("sub/inner/content"), "three");

  ASSERT_EQ(Unmount("sub/inner"), 0);
  EXPECT_THAT(Follow(), ElementsAre("sub/inner"));
  EXPECT_EQ(Seen("sub/inner/content"), "");
  EXPECT_EQ(Seen("sub/content"), "two");
  ASSERT_EQ(Unmount("sub"), 0);
  EXPECT_THAT(Follow(), ElementsAre("sub"));
  EXPECT_TRUE(fs::exists(absl::StrCat("/proc/", server_, "/root/sub/deep")));
}

TEST_F(FollowMountsTest, TheHostCanUnmountWhatTheServerHasOpen) {
  ASSERT_NO_FATAL_FAILURE(MountTmpfs("sub", "one"));
  Follow();
  const UniqueFd held(open(absl::StrCat("/proc/", server_, "/root/sub/content").c_str(), O_PATH | O_CLOEXEC));
  ASSERT_TRUE(held.valid());
  EXPECT_EQ(Unmount("sub"), 0);
  EXPECT_EQ(Seen("sub/content"), "one") << "until it is followed";
  EXPECT_THAT(Follow(), ElementsAre("sub"));
  EXPECT_EQ(Seen("sub/content"), "");
}

TEST_F(FollowMountsTest, ReadOnlySharesHaveReadOnlyMounts) {
  ASSERT_NO_FATAL_FAILURE(MountTmpfs("sub", "one"));
  Follow(/*read_only=*/true);
  EXPECT_EQ(Seen("sub/content"), "one");
  const UniqueFd file(
      open(absl::StrCat("/proc/", server_, "/root/sub/new").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  EXPECT_FALSE(file.valid());
  EXPECT_EQ(errno, EROFS);
}

TEST_F(FollowMountsTest, LinksThatAGuestPutsInTheWayLeadNowhere) {
  ASSERT_NO_FATAL_FAILURE(MountTmpfs("sub/deep", "one"));
  // The path of the mount as it was: now a link leads elsewhere, to a mount of the same name.
  fs::create_directories(root_ + "/secret/deep");
  ASSERT_EQ(mount("test", (root_ + "/secret/deep").c_str(), "tmpfs", 0, nullptr), 0);
  std::ofstream(root_ + "/secret/deep/content") << "secret";
  ASSERT_EQ(rename((directory_ + "/sub").c_str(), (directory_ + "/moved").c_str()), 0);
  fs::create_directory_symlink("../secret", directory_ + "/sub");
  Follow();
  EXPECT_EQ(Seen("moved/deep/content"), "one");
  EXPECT_EQ(Seen("sub/deep/content"), "");
}

TEST_F(FollowMountsTest, NothingIsFollowedOnceSomethingElseIsThere) {
  ASSERT_EQ(rename(directory_.c_str(), (root_ + "/away").c_str()), 0);
  fs::create_directories(directory_ + "/sub");
  ASSERT_NO_FATAL_FAILURE(MountTmpfs("sub", "another's"));
  EXPECT_THAT(Follow(), IsEmpty());
  EXPECT_EQ(Seen("sub/content"), "");
}

}  // namespace
}  // namespace husk::hypervisor
