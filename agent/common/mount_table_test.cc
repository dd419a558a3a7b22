#include "agent/common/mount_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkstemp is POSIX's
#include <unistd.h>

#include <fstream>

namespace husk {
namespace {

TEST(MountTable, ReadsEscapesOptionalFieldsAndBrokenLines) {
  std::string path = testing::TempDir() + "/mounts-XXXXXX";
  close(mkstemp(path.data()));
  std::ofstream(path) << "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n"
                         "2 1 0:5 / /run rw - tmpfs none rw\n"
                         "garbage\n"
                         "3 1 8:1 - - -\n"
                         "4 2 0:6 /sub /run/with\\040space rw shared:2 master:3 - cgroup cgroup rw,cpu,cpuacct\n";
  const auto mounts = ReadMountTable(path);
  unlink(path.c_str());
  ASSERT_TRUE(mounts.ok()) << mounts.status();
  ASSERT_EQ(mounts->size(), 3U);
  EXPECT_EQ((*mounts)[2].id, 4U);
  EXPECT_TRUE((*mounts)[0].shared);
  EXPECT_FALSE((*mounts)[1].shared);
  EXPECT_EQ((*mounts)[2].root, "/sub");
  EXPECT_EQ((*mounts)[2].mount_point, "/run/with space");
  EXPECT_THAT((*mounts)[2].super_options, testing::ElementsAre("rw", "cpu", "cpuacct"));

  EXPECT_EQ(FindMount(*mounts, "/run/with space/below"), &(*mounts)[2]);
  EXPECT_EQ(FindMount(*mounts, "/run/other"), &(*mounts)[1]);
  EXPECT_EQ(FindMount(*mounts, "/runner"), &(*mounts)[0]);
}

TEST(MountTable, OfThisProcessHasARoot) {
  const auto mounts = ReadMountTable();
  ASSERT_TRUE(mounts.ok()) << mounts.status();
  EXPECT_NE(FindMount(*mounts, "/"), nullptr);
  EXPECT_FALSE(ReadMountTable("/nowhere").ok());
}

}  // namespace
}  // namespace husk
