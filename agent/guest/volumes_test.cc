// Volumes on real file systems, in a mount namespace of the test's own.
#include "agent/guest/volumes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace husk::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class VolumesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-volumes-XXXXXX";
    base_ = mkdtemp(pattern.data());
    ASSERT_EQ(unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    std::filesystem::create_directory(base_ + "/memory");
    std::filesystem::create_directory(base_ + "/scratch");
    ASSERT_EQ(mount("scratch", (base_ + "/scratch").c_str(), "tmpfs", 0, nullptr), 0);
  }
  void TearDown() override {
    EXPECT_TRUE(volumes_->Remove("v").ok());
    EXPECT_EQ(umount2((base_ + "/scratch").c_str(), 0), 0);
    std::filesystem::remove_all(base_);
  }

  Status Create(v1::VolumeMedium medium, bool single_file = false) {
    v1::CreateVolumeRequest request;
    request.set_volume_id("v");
    request.set_medium(medium);
    request.set_single_file(single_file);
    request.set_mode(0755);
    request.set_uid(1000);
    request.set_gid(1001);
    return volumes_->Create(request);
  }
  Status Change(const std::function<void(v1::FileOperation&)>& fill) {
    v1::ChangeVolumeRequest request;
    request.set_volume_id("v");
    fill(*request.add_operations());
    return volumes_->Change(request);
  }
  Status Write(const std::string& path, const std::string& data, std::uint64_t offset = 0, bool last = true) {
    return Change([&](v1::FileOperation& operation) {
      auto& write = *operation.mutable_write_file();
      write.set_path(path);
      write.set_data(data);
      write.set_offset(offset);
      write.set_last(last);
      write.mutable_owner()->set_mode(0640);
      write.mutable_owner()->set_uid(7);
    });
  }
  Status Directory(const std::string& path) {
    return Change([&](v1::FileOperation& operation) {
      operation.mutable_make_directory()->set_path(path);
      operation.mutable_make_directory()->mutable_owner()->set_mode(0750);
    });
  }
  Status Link(const std::string& path, const std::string& target) {
    return Change([&](v1::FileOperation& operation) {
      operation.mutable_make_symlink()->set_path(path);
      operation.mutable_make_symlink()->set_target(target);
    });
  }
  Status Remove(const std::string& path) {
    return Change([&](v1::FileOperation& operation) { operation.mutable_remove()->set_path(path); });
  }
  StatusOr<std::string> Source(const std::string& sub_path = "") {
    v1::VolumeMount mount;
    mount.set_volume_id("v");
    mount.set_sub_path(sub_path);
    return volumes_->MountSource(mount);
  }
  std::string Files() { return Source().value_or("no volume"); }
  std::string Contents(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(Files() + "/" + path).rdbuf();
    return text.str();
  }
  std::vector<std::string> List() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(Files())) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  std::string base_;
  std::unique_ptr<Volumes> volumes_;

  VolumesTest() = default;
  void Start() { volumes_ = std::make_unique<Volumes>(base_ + "/memory", base_ + "/scratch"); }
};

TEST_F(VolumesTest, KeepsATreeAsTheKubeletSwapsIt) {
  for (const v1::VolumeMedium medium : {v1::MEMORY, v1::SCRATCH}) {
    Start();
    ASSERT_TRUE(Create(medium).ok());
    EXPECT_TRUE(Create(medium).ok());
    EXPECT_TRUE(absl::IsAlreadyExists(Create(medium, true)));
    ASSERT_TRUE(Directory("..1").ok());
    ASSERT_TRUE(Write("..1/key", "first ", 0, false).ok());
    EXPECT_EQ(Contents("..1/key"), "");  // not before it is whole
    ASSERT_TRUE(Write("..1/key", "value", 6).ok());
    ASSERT_TRUE(Link("..data", "..1").ok());
    ASSERT_TRUE(Link("key", "..data/key").ok());
    EXPECT_EQ(Contents("key"), "first value");
    struct stat info{};
    ASSERT_EQ(stat((Files() + "/key").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777U, 0640U);
    EXPECT_EQ(info.st_uid, 7U);
    ASSERT_TRUE(Directory("..2").ok());
    ASSERT_TRUE(Write("..2/key", "second").ok());
    ASSERT_TRUE(Link("..data", "..2").ok());
    EXPECT_EQ(Contents("key"), "second");
    ASSERT_TRUE(Change([](v1::FileOperation& operation) {
                  for (const char* name : {"..2", "..data", "key"}) operation.mutable_keep_only()->add_names(name);
                }).ok());
    EXPECT_THAT(List(), UnorderedElementsAre("..2", "..data", "key"));
    ASSERT_TRUE(Remove("..2").ok());
    EXPECT_TRUE(Remove("..2/key").ok());
    EXPECT_THAT(List(), UnorderedElementsAre("..data", "key"));
    EXPECT_TRUE(volumes_->Remove("v").ok());
  }
}

TEST_F(VolumesTest, ASingleFileStaysTheSameFile) {
  Start();
  ASSERT_TRUE(Create(v1::MEMORY, true).ok());
  struct stat before{};
  ASSERT_EQ(stat(Files().c_str(), &before), 0);
  EXPECT_EQ(before.st_mode & 07777U, 0755U);
  EXPECT_EQ(before.st_uid, 1000U);
  ASSERT_TRUE(Write("", "a longer text").ok());
  ASSERT_TRUE(Write("", "short").ok());
  struct stat after{};
  ASSERT_EQ(stat(Files().c_str(), &after), 0);
  EXPECT_EQ(after.st_ino, before.st_ino);
  v1::ReadVolumeRequest request;
  request.set_volume_id("v");
  request.set_offset(1);
  request.set_maximum_bytes(3);
  EXPECT_EQ(volumes_->Read(request)->data(), "hor");
  request.set_offset(100);
  EXPECT_EQ(volumes_->Read(request)->data(), "");
  EXPECT_FALSE(Directory("x").ok());
}

TEST_F(VolumesTest, AShareThatIsNotThereCanBeAskedForAgain) {
  Start();
  EXPECT_TRUE(absl::IsInvalidArgument(Create(v1::VIRTIOFS, true)));
  EXPECT_FALSE(Create(v1::VIRTIOFS).ok());
  EXPECT_TRUE(absl::IsNotFound(Source().status()));
  // Nothing of it is in the way of another kind.
  ASSERT_TRUE(Create(v1::MEMORY).ok());
  EXPECT_TRUE(Write("file", "x").ok());
}

TEST_F(VolumesTest, HugePagesAreAFileSystemOfTheirOwn) {
  Start();
  v1::CreateVolumeRequest request;
  request.set_volume_id("v");
  request.set_medium(v1::HUGE_PAGES);
  request.set_mode(02770);
  request.set_gid(1001);
  request.set_page_size_bytes(std::uint64_t{3} << 20);
  const Status odd = volumes_->Create(request);
  if (absl::IsUnimplemented(odd) || odd.message().find("No such device") != std::string::npos) {
    GTEST_SKIP() << "this kernel has no hugetlbfs";
  }
  EXPECT_TRUE(absl::IsInvalidArgument(odd)) << odd;
  EXPECT_THAT(std::string(odd.message()), HasSubstr("page_size_bytes: the VM's kernel has no huge pages of 3145728"));
  request.set_page_size_bytes(std::uint64_t{2} << 20);
  request.set_single_file(true);
  EXPECT_TRUE(absl::IsInvalidArgument(volumes_->Create(request)));
  request.set_single_file(false);
  request.set_size_bytes(std::uint64_t{8} << 20);
  ASSERT_TRUE(volumes_->Create(request).ok());
  EXPECT_TRUE(volumes_->Create(request).ok());
  struct statfs file_system{};
  ASSERT_EQ(statfs(Files().c_str(), &file_system), 0);
  EXPECT_EQ(file_system.f_type, HUGETLBFS_MAGIC);
  EXPECT_EQ(file_system.f_bsize, 2 << 20);
  EXPECT_EQ(file_system.f_blocks, 4U);
  struct stat info{};
  ASSERT_EQ(stat(Files().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777U, 02770U);
  EXPECT_EQ(info.st_gid, 1001U);
  EXPECT_TRUE(absl::IsInvalidArgument(Write("file", "x")));
  const auto part = Source("part");
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_TRUE(volumes_->Trees().empty());
  ASSERT_TRUE(volumes_->Remove("v").ok());
  EXPECT_TRUE(std::filesystem::is_empty(base_ + "/memory"));
}

TEST_F(VolumesTest, NoPathLeavesTheVolume) {
  Start();
  ASSERT_TRUE(Create(v1::MEMORY).ok());
  std::filesystem::create_directory(base_ + "/outside");
  // What a container that may write there would leave.
  std::filesystem::create_symlink(base_ + "/outside", Files() + "/way-out");
  for (const char* path : {"..", "../x", "a/../../x", "/x", "", "a//b", ".", "way-out/x"}) {
    EXPECT_FALSE(Write(path, "x").ok()) << path;
    EXPECT_FALSE(Directory(path).ok()) << path;
    EXPECT_FALSE(Link(path, "t").ok()) << path;
  }
  EXPECT_FALSE(Remove("way-out/..").ok());
  EXPECT_TRUE(std::filesystem::is_empty(base_ + "/outside"));
  // The link itself is replaced, and removed, not what it points to.
  EXPECT_TRUE(Write("way-out", "x").ok());
  EXPECT_TRUE(std::filesystem::is_regular_file(std::filesystem::symlink_status(Files() + "/way-out")));
  EXPECT_THAT(std::string(Source("way-out").status().message()), HasSubstr("way-out"));
  EXPECT_FALSE(Source("..").ok());
  const auto made = Source("a/b");
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(std::filesystem::is_directory(*made));
}

TEST_F(VolumesTest, UnknownOnesAndBadRequests) {
  Start();
  EXPECT_TRUE(absl::IsNotFound(Write("x", "y")));
  EXPECT_TRUE(absl::IsNotFound(Source().status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Create(v1::VOLUME_MEDIUM_UNSPECIFIED)));
  v1::CreateVolumeRequest request;
  request.set_volume_id("../v");
  request.set_medium(v1::SCRATCH);
  EXPECT_TRUE(absl::IsInvalidArgument(volumes_->Create(request)));
  Volumes unconfigured(base_ + "/memory", base_ + "/none");
  request.set_volume_id("v");
  EXPECT_TRUE(absl::IsFailedPrecondition(unconfigured.Create(request)));
}

TEST_F(VolumesTest, AVolumeInMemoryHasItsSize) {
  Start();
  v1::CreateVolumeRequest request;
  request.set_volume_id("v");
  request.set_medium(v1::MEMORY);
  request.set_size_bytes(64 << 10);
  ASSERT_TRUE(volumes_->Create(request).ok());
  EXPECT_EQ(Write("big", std::string(1 << 20, 'x')).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Write("small", "x").ok());
}

TEST_F(VolumesTest, OnlyADirectoryOfTheHostIsLookedAtAgain) {
  Start();
  v1::LookAgainRequest request;
  request.set_volume_id("v");
  request.add_paths("sub");
  EXPECT_TRUE(absl::IsNotFound(volumes_->LookAgain(request)));
  ASSERT_TRUE(Create(v1::MEMORY).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(volumes_->LookAgain(request)));
}

}  // namespace
}  // namespace husk::agent
