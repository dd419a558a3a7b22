#include "hypervisor/qemu/disk.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace husk::hypervisor {
namespace {

using ::testing::HasSubstr;

TEST(VmdkTest, ExtentsFollowEachOther) {
  EXPECT_EQ(VmdkDescriptor({{.fdset = 2, .length = 1048576}, {.fdset = 3, .length = 512}}),
            "# Disk DescriptorFile\n"
            "version=1\n"
            "CID=fffffffe\n"
            "parentCID=ffffffff\n"
            "createType=\"twoGbMaxExtentFlat\"\n"
            "\n"
            "# Extent description\n"
            "RW 2048 FLAT \"/dev/fdset/2\" 0\n"
            "RW 1 FLAT \"/dev/fdset/3\" 0\n");
}

TEST(VmdkTest, TheDescriptorFileCanOnlyBeRead) {
  const auto file = DescriptorFile("text");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(fcntl(file->get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  std::array<char, 8> buffer{};
  EXPECT_EQ(read(file->get(), buffer.data(), buffer.size()), 4);
}

TEST(LunTest, TheLowestFreeOne) {
  EXPECT_EQ(FreeLun({}, {}).value(), 1U);
  EXPECT_EQ(FreeLun({0, 1, 3}, {2}).value(), 4U);
  std::set<std::uint32_t> all;
  for (std::uint32_t lun = 0; lun <= kHighestLun; ++lun) all.insert(lun);
  EXPECT_TRUE(absl::IsResourceExhausted(FreeLun(all, {}).status()));
}

TEST(LunTest, Names) {
  EXPECT_EQ(LunOfName("lun0"), 0U);
  EXPECT_EQ(LunOfName("lun255"), 255U);
  for (const char* name : {"", "lun", "lun256", "lun-1", "lun1x", "scsi", "lun99999999999999999999"}) {
    EXPECT_FALSE(LunOfName(name).has_value()) << name;
  }
}

TEST(BlockNodeTest, BlockDevicesMayHaveSeveralWriters) {
  const auto device = RawBlockNode("lun1", {.fdset = 1, .length = 512, .block_device = true, .read_only = false});
  EXPECT_EQ(device["file"]["driver"], "host_device");
  EXPECT_EQ(device["file"]["locking"], "off");
  const auto scratch = RawBlockNode("lun0", {.fdset = 1, .length = 512, .block_device = false, .read_only = false});
  EXPECT_EQ(scratch["file"]["driver"], "file");
  EXPECT_FALSE(scratch["file"].contains("locking"));
}

TEST(BlockNodeTest, TheGuestIsToldOfErrorsOfWhatIsPluggedIn) {
  EXPECT_EQ(ScsiDisk(3)["werror"], "report");
  EXPECT_EQ(ScsiDisk(3)["rerror"], "report");
  EXPECT_FALSE(ScsiDisk(0).contains("werror"));
}

class OpenDiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "husk-disk-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    file_ = directory_ + "/file";
    std::ofstream(file_) << std::string(1024, 'x');
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string directory_;
  std::string file_;
};

TEST_F(OpenDiskTest, OpensWithTheRightsThatAreNeeded) {
  const auto read_only = OpenDisk({.extents = {{file_, 512}, {file_, 1024}}});
  ASSERT_TRUE(read_only.ok()) << read_only.status();
  ASSERT_EQ(read_only->size(), 2U);
  EXPECT_EQ(fcntl(read_only->at(0).descriptor.get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  EXPECT_EQ(read_only->at(1).length, 1024U);
  const auto writable = OpenDisk({.extents = {{file_, 1024}}, .read_only = false});
  ASSERT_TRUE(writable.ok()) << writable.status();
  EXPECT_EQ(fcntl(writable->at(0).descriptor.get(), F_GETFL) & O_ACCMODE, O_RDWR);
}

TEST_F(OpenDiskTest, RefusesWhatIsNoDisk) {
  const std::string fifo = directory_ + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_FALSE(OpenDisk({}).ok());
  EXPECT_FALSE(OpenDisk({.extents = {{file_, 0}}}).ok());
  EXPECT_FALSE(OpenDisk({.extents = {{file_, 100}}}).ok());
  EXPECT_FALSE(OpenDisk({.extents = {{file_, 512}, {file_, 512}}, .read_only = false}).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(OpenDisk({.extents = {{fifo, 512}}}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(OpenDisk({.extents = {{directory_, 512}}}).status()));
  const auto too_short = OpenDisk({.extents = {{file_, 1536}}});
  EXPECT_THAT(std::string(too_short.status().message()), HasSubstr(file_ + ": has 1024 bytes"));
}

}  // namespace
}  // namespace husk::hypervisor
