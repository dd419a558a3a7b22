#include "agent/guest/cgroup.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace husk::agent {
namespace {

class CgroupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-cgroup-XXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  OutOfMemory After(const std::string& events) {
    std::ofstream(directory_ + "/memory.events") << events;
    return CgroupOutOfMemory(directory_);
  }

  std::string directory_;
};

TEST_F(CgroupTest, TellsALimitOfTheContainersFromAGuestThatIsOutOfMemory) {
  EXPECT_EQ(CgroupOutOfMemory(directory_), OutOfMemory::kNone) << "a cgroup without events";
  EXPECT_EQ(After("low 0\nhigh 0\nmax 9\noom 2\noom_kill 0\noom_group_kill 0\n"), OutOfMemory::kNone);
  EXPECT_EQ(After("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n"), OutOfMemory::kContainer);
  EXPECT_EQ(After("low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\noom_group_kill 0\n"), OutOfMemory::kGuest);
  EXPECT_EQ(After("oom_kill x\noom_kill\n\n"), OutOfMemory::kNone);
}

TEST_F(CgroupTest, ThePageCacheIsNoMemoryInUse) {
  EXPECT_EQ(CgroupMemoryInUse(directory_), 0U);
  std::ofstream(directory_ + "/memory.current") << "1000\n";
  std::ofstream(directory_ + "/memory.stat")
      << "anon 300\nfile 600\nshmem 100\ninactive_file 400\nactive_file 100\nx\n";
  EXPECT_EQ(CgroupMemoryInUse(directory_), 500U);
  std::ofstream(directory_ + "/memory.stat") << "inactive_file 4000\n";
  EXPECT_EQ(CgroupMemoryInUse(directory_), 0U) << "figures of different moments";
}

}  // namespace
}  // namespace husk::agent
