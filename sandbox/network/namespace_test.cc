#include "sandbox/network/namespace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX's
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "agent/common/mount_table.h"
#include "sandbox/network/link.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;

ino_t InodeOf(const std::string& path) {
  struct stat info{};
  EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
  return info.st_ino;
}

class Namespaces : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/netns-XXXXXX";
    root_ = mkdtemp(name.data());
    own_ = InodeOf("/proc/thread-self/ns/net");
  }
  void TearDown() override {
    EXPECT_EQ(InodeOf("/proc/thread-self/ns/net"), own_) << "the caller never changes namespace";
    const auto mounts = ReadMountTable();
    for (const Mount& mount : *mounts) EXPECT_FALSE(absl::StartsWith(mount.mount_point, root_)) << mount.mount_point;
    fs::remove_all(root_);
  }
  std::string root_;
  ino_t own_ = 0;
};

TEST_F(Namespaces, AreMadeEnteredListedAndRemoved) {
  NamespaceDirectory directory(root_ + "/dir");
  EXPECT_TRUE(directory.List()->empty());
  ASSERT_TRUE(directory.Create("a").ok());
  EXPECT_TRUE(absl::IsAlreadyExists(directory.Create("a")));
  ASSERT_TRUE(directory.Create("b").ok());
  EXPECT_THAT(*directory.List(), testing::UnorderedElementsAre("a", "b"));
  EXPECT_NE(InodeOf(directory.PathOf("a")), own_);
  EXPECT_NE(InodeOf(directory.PathOf("a")), InodeOf(directory.PathOf("b")));

  ino_t inside = 0;
  const Status entered = RunInNamespace(directory.PathOf("a"), [&]() -> Status {
    inside = InodeOf("/proc/thread-self/ns/net");
    HUSK_ASSIGN_OR_RETURN(const Link loopback, ReadLink("lo"));
    EXPECT_EQ(loopback.mtu, 65536U);
    EXPECT_TRUE(absl::IsNotFound(ReadLink("eth0").status()));
    EXPECT_TRUE(ReadRoutes(loopback)->empty());
    return absl::AbortedError("as the work says");
  });
  EXPECT_TRUE(absl::IsAborted(entered));
  EXPECT_EQ(inside, InodeOf(directory.PathOf("a")));

  // Any later process can remove them.
  NamespaceDirectory later(root_ + "/dir");
  EXPECT_TRUE(later.Remove("a").ok());
  EXPECT_TRUE(later.Remove("a").ok());
  EXPECT_TRUE(absl::IsNotFound(RunInNamespace(directory.PathOf("a"), [] { return absl::OkStatus(); })));
  EXPECT_TRUE(later.Remove("b").ok());
  EXPECT_TRUE(later.List()->empty());
}

TEST_F(Namespaces, AFileWithoutAMountIsALeftoverThatCanBeRemoved) {
  NamespaceDirectory directory(root_);
  std::ofstream(root_ + "/stale") << "";
  EXPECT_THAT(*directory.List(), testing::ElementsAre("stale"));
  EXPECT_FALSE(RunInNamespace(directory.PathOf("stale"), [] { return absl::OkStatus(); }).ok());
  EXPECT_TRUE(directory.Remove("stale").ok());
  EXPECT_TRUE(directory.List()->empty());
}

TEST_F(Namespaces, ComeAndGoSideBySide) {
  NamespaceDirectory directory(root_ + "/dir");
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int round = 0; round < 10; ++round) {
        const std::string id = absl::StrCat("t", thread, "-", round);
        const Status made = directory.Create(id);
        EXPECT_TRUE(made.ok()) << made;
        EXPECT_TRUE(RunInNamespace(directory.PathOf(id), [] { return absl::OkStatus(); }).ok());
        EXPECT_TRUE(directory.Remove(id).ok());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(directory.List()->empty());
}

}  // namespace
}  // namespace husk::sandbox
