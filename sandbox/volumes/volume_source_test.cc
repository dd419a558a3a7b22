#include "sandbox/volumes/volume_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace husk::sandbox {
namespace {

using ::testing::HasSubstr;

constexpr const char* kUid = "0c3b";

class VolumeSourceTest : public ::testing::Test {
 protected:
  VolumeSourceTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "husk-source-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    pod_ = directory_ + "/pods/" + kUid;
  }
  ~VolumeSourceTest() override { std::filesystem::remove_all(directory_); }

  std::string Directory(const std::string& path) {
    std::filesystem::create_directories(pod_ + "/" + path);
    return pod_ + "/" + path;
  }
  std::string File(const std::string& path) {
    std::filesystem::create_directories(std::filesystem::path(pod_ + "/" + path).parent_path());
    std::ofstream(pod_ + "/" + path) << "x";
    return pod_ + "/" + path;
  }
  static StatusOr<VolumeSource> Find(const std::string& path, bool read_only = false, const std::string& uid = kUid) {
    return FindVolumeSource({.container_path = "/v", .host_path = path, .read_only = read_only}, uid);
  }

  std::string directory_;
  std::string pod_;
};

TEST_F(VolumeSourceTest, KnowsTheKubeletsPlaces) {
  for (const char* plugin : {"configmap", "secret", "projected", "downward-api"}) {
    const auto source = Find(Directory("volumes/kubernetes.io~" + std::string(plugin) + "/name"));
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ(source->kind, VolumeKind::kFiles);
    EXPECT_EQ(source->sub_path, "");
  }
  const std::string empty = Directory("volumes/kubernetes.io~empty-dir/cache");
  chmod(empty.c_str(), 02777);
  const auto source = Find(empty + "/");
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(source->kind, VolumeKind::kEmptyDirectory);
  EXPECT_EQ(source->mode, 02777U);
  const auto part = Find(Directory("volumes/kubernetes.io~empty-dir/cache/a/b"));
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(part->id, source->id);
  EXPECT_EQ(part->sub_path, "a/b");
  const auto hosts = Find(File("etc-hosts"));
  ASSERT_TRUE(hosts.ok()) << hosts.status();
  EXPECT_EQ(hosts->kind, VolumeKind::kFile);
  EXPECT_FALSE(hosts->copy_back);
  EXPECT_TRUE(Find(File("containers/main/4711"))->copy_back);
}

TEST_F(VolumeSourceTest, SaysWhatItCannotDo) {
  const auto refusal = [](const StatusOr<VolumeSource>& source) { return std::string(source.status().message()); };
  EXPECT_THAT(refusal(Find("")), HasSubstr("no absolute path"));
  EXPECT_THAT(refusal(Find("relative")), HasSubstr("relative"));
  EXPECT_THAT(refusal(Find(directory_ + "/none")), HasSubstr(directory_ + "/none: does not exist"));
  EXPECT_TRUE(absl::IsUnimplemented(Find("/dev/null").status()));
  std::filesystem::create_symlink("nowhere", directory_ + "/dangling");
  EXPECT_THAT(refusal(Find(directory_ + "/dangling")), HasSubstr("is a symlink to nowhere, which does not exist"));
  const std::string file = directory_ + "/file";
  std::ofstream(file) << "x";
  EXPECT_TRUE(absl::IsUnimplemented(Find(file).status()));
  EXPECT_TRUE(Find(file, true).ok());
  std::filesystem::resize_file(file, std::uint64_t{17} << 20);
  EXPECT_TRUE(absl::IsUnimplemented(Find(file, true).status()));
}

TEST_F(VolumeSourceTest, OtherDirectoriesAreShared) {
  // Another pod's directory is a directory like any other.
  const std::string secret = Directory("volumes/kubernetes.io~secret/name");
  for (const auto& [path, uid] : {std::pair<std::string, std::string>{directory_, kUid},
                                  {Directory("volumes/kubernetes.io~csi/pvc/mount"), kUid},
                                  {Directory("plugin-data"), kUid},
                                  {secret, "another"},
                                  {secret, ""}}) {
    const auto source = Find(path, false, uid);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ(source->kind, VolumeKind::kShared) << path;
    EXPECT_EQ(source->path, path);
    EXPECT_FALSE(source->read_only);
    const auto read_only = Find(path, true, uid);
    ASSERT_TRUE(read_only.ok()) << read_only.status();
    EXPECT_TRUE(read_only->read_only);
    EXPECT_NE(read_only->id, source->id);
    EXPECT_LE(source->id.size(), 36U) << "virtiofs takes no longer tag";
  }
}

TEST_F(VolumeSourceTest, FindsMemoryAndSubPathsByTheirMounts) {
  ASSERT_EQ(unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  const std::string memory = Directory("volumes/kubernetes.io~empty-dir/memory");
  ASSERT_EQ(mount("tmpfs", memory.c_str(), "tmpfs", 0, "size=1m"), 0);
  const auto source = Find(memory);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE(source->in_memory);
  EXPECT_EQ(source->size_bytes, 1U << 20);
  for (const char* volume : {"memory", "disk"}) {
    const std::string below = Directory("volumes/kubernetes.io~empty-dir/" + std::string(volume) + "/below");
    const std::string place = Directory("volume-subpaths/" + std::string(volume) + "/main/0");
    ASSERT_EQ(mount(below.c_str(), place.c_str(), nullptr, MS_BIND, nullptr), 0);
    const auto found = Find(place);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->path, pod_ + "/volumes/kubernetes.io~empty-dir/" + volume);
    EXPECT_EQ(found->sub_path, "below");
    EXPECT_EQ(umount2(place.c_str(), 0), 0);
  }
  EXPECT_EQ(umount2(memory.c_str(), 0), 0);
}

TEST_F(VolumeSourceTest, OnlySharedDirectoriesFollowTheHostsMounts) {
  const auto find = [&](const std::string& path) {
    return FindVolumeSource({.container_path = "/c", .host_path = path, .follow_mounts = true}, kUid);
  };
  std::filesystem::create_directories(directory_ + "/other");
  const auto shared = find(directory_ + "/other");
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_TRUE(shared->follow_mounts);
  EXPECT_TRUE(shared->immediate);
  EXPECT_NE(shared->id, Find(directory_ + "/other")->id);
  for (const std::string& path : {Directory("volumes/kubernetes.io~empty-dir/e"),
                                  Directory("volumes/kubernetes.io~configmap/c"), File("containers/main/1")}) {
    const Status refused = find(path).status();
    EXPECT_TRUE(absl::IsUnimplemented(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(path + ": propagation HOST_TO_CONTAINER"));
  }
}

TEST_F(VolumeSourceTest, AnEmptyDirectoryOfHugePagesIsMadeOfTheGuests) {
  ASSERT_EQ(unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  const std::string pages = Directory("volumes/kubernetes.io~empty-dir/pages");
  const std::string other = directory_ + "/other";
  std::filesystem::create_directories(other);
  if (mount("none", pages.c_str(), "hugetlbfs", 0, "pagesize=2M,mode=0770") != 0) {
    GTEST_SKIP() << "this kernel has no hugetlbfs, or no huge pages of 2 MiB";
  }
  ASSERT_EQ(mount("none", other.c_str(), "hugetlbfs", 0, "pagesize=2M,size=4M"), 0);
  const auto source = Find(pages);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(source->kind, VolumeKind::kEmptyDirectory);
  EXPECT_EQ(source->page_size_bytes, 2U << 20);
  EXPECT_EQ(source->size_bytes, 0U);
  EXPECT_EQ(source->mode, 0770U);
  std::filesystem::create_directory(pages + "/part");
  const auto part = Find(pages + "/part");
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(part->id, source->id);
  EXPECT_EQ(part->sub_path, "part");
  std::ofstream(pages + "/part/full");
  const Status full = Find(pages).status();
  EXPECT_TRUE(absl::IsUnimplemented(full)) << full;
  EXPECT_THAT(std::string(full.message()), HasSubstr("/part/full:"));
  const Status elsewhere = Find(other).status();
  EXPECT_TRUE(absl::IsUnimplemented(elsewhere)) << elsewhere;
  EXPECT_THAT(std::string(elsewhere.message()), HasSubstr("emptyDir of medium HugePages"));
  EXPECT_EQ(umount2(pages.c_str(), 0), 0);
  ASSERT_EQ(mount("none", pages.c_str(), "hugetlbfs", 0, "pagesize=2M,size=4M"), 0);
  EXPECT_EQ(Find(pages)->size_bytes, 4U << 20);
  EXPECT_EQ(umount2(pages.c_str(), 0), 0);
  EXPECT_EQ(umount2(other.c_str(), 0), 0);
}

}  // namespace
}  // namespace husk::sandbox
