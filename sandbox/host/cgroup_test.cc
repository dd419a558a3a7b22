#include "sandbox/host/cgroup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): kill is POSIX's
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX's
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

Context Soon() {
  return Context::Background().WithTimeout(std::chrono::seconds(60));
}

// Directories that look like two v1 hierarchies, a named one and a v2 tree.
class CgroupTree : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/cgroups-XXXXXX";
    root_ = mkdtemp(name.data());
    std::ofstream table(root_ + "/mountinfo");
    int id = 10;
    const auto mount = [&](const std::string& at, const std::string& type, const std::string& options) {
      fs::create_directories(root_ + at);
      table << id++ << " 1 0:1 / " << root_ << at << " rw - " << type << " x rw," << options << "\n";
    };
    mount("/cpu", "cgroup", "cpu,cpuacct");
    mount("/again", "cgroup", "cpu,cpuacct");
    mount("/memory", "cgroup", "memory");
    mount("/systemd", "cgroup", "name=systemd");
    mount("/unified", "cgroup2", "nsdelegate");
    table.close();
    cgroups_ = NewHostCgroups("/husk", root_ + "/mountinfo");
  }
  void TearDown() override { fs::remove_all(root_); }

  [[nodiscard]] std::vector<std::string> Left(const std::string& hierarchy) const {
    std::vector<std::string> left;
    for (const auto& entry : fs::recursive_directory_iterator(root_ + hierarchy)) {
      left.push_back(fs::relative(entry.path(), root_ + hierarchy).string());
    }
    return left;
  }

  std::string root_;
  std::unique_ptr<HostCgroups> cgroups_;
};

TEST_F(CgroupTree, MakesOneGroupInEachHierarchyWithControllersAndInV2) {
  const auto files = cgroups_->Create("", "pod1");
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(*files,
              ElementsAre(root_ + "/cpu/husk/husk-pod1/cgroup.procs", root_ + "/memory/husk/husk-pod1/cgroup.procs",
                          root_ + "/unified/husk/husk-pod1/cgroup.procs"));
  EXPECT_TRUE(fs::is_directory(root_ + "/unified/husk/husk-pod1"));
  EXPECT_TRUE(cgroups_->Create("", "pod1").ok()) << "a retry finds it made";
  ASSERT_TRUE(cgroups_->Create("", "pod2").ok());

  EXPECT_TRUE(cgroups_->Remove(Soon(), "", "pod1").ok());
  EXPECT_TRUE(fs::is_directory(root_ + "/cpu/husk/husk-pod2")) << "another pod keeps the default parent";
  EXPECT_TRUE(cgroups_->Remove(Soon(), "", "pod2").ok());
  EXPECT_TRUE(cgroups_->Remove(Soon(), "", "pod2").ok());
  for (const char* hierarchy : {"/cpu", "/memory", "/unified", "/systemd", "/again"}) {
    EXPECT_THAT(Left(hierarchy), IsEmpty());
  }
}

TEST_F(CgroupTree, ANamedParentStays) {
  ASSERT_TRUE(cgroups_->Create("/kubepods/burstable/pod7/", "a").ok());
  EXPECT_TRUE(fs::is_directory(root_ + "/memory/kubepods/burstable/pod7/husk-a"));
  ASSERT_TRUE(cgroups_->Remove(Soon(), "/kubepods/burstable/pod7", "a").ok());
  EXPECT_FALSE(fs::exists(root_ + "/memory/kubepods/burstable/pod7/husk-a"));
  EXPECT_TRUE(fs::is_directory(root_ + "/memory/kubepods/burstable/pod7"));
}

TEST_F(CgroupTree, ExpandsSlicesAsSystemdDoes) {
  ASSERT_TRUE(cgroups_->Create("kubepods-burstable-pod1.slice", "a").ok());
  EXPECT_TRUE(
      fs::is_directory(root_ + "/cpu/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/husk-a"));
  ASSERT_TRUE(cgroups_->Create("-.slice", "b").ok());
  EXPECT_TRUE(fs::is_directory(root_ + "/cpu/husk-b"));
  for (const char* bad : {"-a.slice", "a--b.slice", "a-.slice", ".slice"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(cgroups_->Create(bad, "a").status())) << bad;
  }
}

TEST_F(CgroupTree, TheDefaultParentWeighsAsMuchAsTheNode) {
  const auto read = [&](const std::string& file) {
    std::ifstream stream(root_ + file);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  };
  ASSERT_TRUE(cgroups_->Create("", "a").ok()) << "files that the kernel does not have are passed over";
  ASSERT_TRUE(cgroups_->Create("/kubepods", "b").ok());
  // What the kernel shows in a group's directory.
  for (const char* group : {"/husk", "/kubepods"}) {
    std::ofstream(root_ + "/cpu" + group + "/cpu.shares") << "";
    std::ofstream(root_ + "/unified" + group + "/cpu.weight") << "";
  }
  ASSERT_TRUE(cgroups_->Create("", "c").ok());
  ASSERT_TRUE(cgroups_->Create("/kubepods", "d").ok());
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  EXPECT_EQ(read("/cpu/husk/cpu.shares"), std::to_string(std::min(1024 * cpus, 262'144L)));
  EXPECT_EQ(read("/unified/husk/cpu.weight"), std::to_string(std::min(100 * cpus, 10'000L)));
  EXPECT_EQ(read("/cpu/kubepods/cpu.shares"), "") << "a named parent is the caller's";
  EXPECT_EQ(read("/unified/kubepods/cpu.weight"), "");
}

TEST_F(CgroupTree, LimitsGoWhereEachHierarchyHasThem) {
  const std::string pod = "/kubepods.slice/kubepods-pod1.slice/husk-a";
  const std::string slice = "kubepods-pod1.slice";
  ASSERT_TRUE(cgroups_->Create(slice, "a").ok());
  // What the kernel shows in a group's directory.
  const auto offer = [&](const std::string& file) { std::ofstream(root_ + file) << ""; };
  const auto read = [&](const std::string& file) {
    std::ifstream stream(root_ + file);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  };
  for (const char* file : {"/cpu.shares", "/cpu.cfs_period_us", "/cpu.cfs_quota_us"}) offer("/cpu" + pod + file);
  offer("/memory" + pod + "/memory.limit_in_bytes");
  for (const char* file : {"/cpu.weight", "/cpu.max", "/memory.max"}) offer("/unified" + pod + file);
  const HostLimits limits{.memory_bytes = 1 << 30, .cpu_shares = 1024, .cpu_quota = 150'000, .cpu_period = 100'000};
  ASSERT_TRUE(cgroups_->SetLimits(slice, "a", limits).ok());
  EXPECT_EQ(read("/cpu" + pod + "/cpu.shares"), "1024");
  EXPECT_EQ(read("/cpu" + pod + "/cpu.cfs_period_us"), "100000");
  EXPECT_EQ(read("/cpu" + pod + "/cpu.cfs_quota_us"), "150000");
  EXPECT_EQ(read("/memory" + pod + "/memory.limit_in_bytes"), "1073741824");
  EXPECT_EQ(read("/unified" + pod + "/cpu.weight"), "39");
  EXPECT_EQ(read("/unified" + pod + "/cpu.max"), "150000 100000");
  EXPECT_EQ(read("/unified" + pod + "/memory.max"), "1073741824");

  for (const char* file : {"/cpu.max", "/cpu.weight"}) fs::remove(root_ + "/unified" + pod + file);
  offer("/unified" + pod + "/cpu.max");
  ASSERT_TRUE(cgroups_->SetLimits(slice, "a", {.cpu_shares = 2, .cpu_quota = -1}).ok()) << "cpu.weight is not there";
  EXPECT_EQ(read("/unified" + pod + "/cpu.max"), "max 100000");
}

TEST_F(CgroupTree, TellsTheLeastMemoryAbove) {
  const std::string parent = "/kubepods/burstable/pod1";
  EXPECT_FALSE(cgroups_->LeastMemoryAbove(parent).has_value());
  ASSERT_TRUE(cgroups_->Create(parent, "a").ok());
  const auto limit = [&](const std::string& file, const std::string& value) { std::ofstream(root_ + file) << value; };
  limit("/memory/kubepods/memory.limit_in_bytes", "9223372036854771712\n");
  limit("/unified/kubepods/memory.max", "max\n");
  EXPECT_FALSE(cgroups_->LeastMemoryAbove(parent).has_value());
  limit("/memory/kubepods/burstable/memory.limit_in_bytes", "1073741824\n");
  limit("/memory/kubepods/burstable/pod1/memory.limit_in_bytes", "67108864\n");
  // Its own is not above it.
  limit("/memory/kubepods/burstable/pod1/husk-a/memory.limit_in_bytes", "4096\n");
  auto least = cgroups_->LeastMemoryAbove(parent);
  ASSERT_TRUE(least.has_value());
  EXPECT_EQ(least->bytes, 67108864U);
  EXPECT_EQ(least->directory, root_ + "/memory/kubepods/burstable/pod1");
  limit("/unified/kubepods/memory.max", "65536\n");
  least = cgroups_->LeastMemoryAbove(parent);
  ASSERT_TRUE(least.has_value());
  EXPECT_EQ(least->directory, root_ + "/unified/kubepods");
  EXPECT_FALSE(cgroups_->LeastMemoryAbove("../x").has_value());
}

TEST_F(CgroupTree, CountsTheKillsOfBothVersions) {
  ASSERT_TRUE(cgroups_->Create("", "a").ok());
  EXPECT_EQ(cgroups_->OomKills("", "a"), 0U);
  std::ofstream(root_ + "/memory/husk/husk-a/memory.oom_control") << "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
  EXPECT_EQ(cgroups_->OomKills("", "a"), 2U);
  std::ofstream(root_ + "/unified/husk/husk-a/memory.events") << "low 0\noom 1\noom_kill 1\n";
  EXPECT_EQ(cgroups_->OomKills("", "a"), 3U);
  EXPECT_EQ(cgroups_->OomKills("", "b"), 0U);
  EXPECT_EQ(cgroups_->OomKills("", "../b"), 0U);
}

TEST_F(CgroupTree, TellsUsageOfBothVersions) {
  ASSERT_TRUE(cgroups_->Create("", "a").ok());
  EXPECT_FALSE(cgroups_->Usage("", "a").cpu_nanoseconds.has_value());
  std::ofstream(root_ + "/cpu/husk/husk-a/cpuacct.usage") << "5000\n";
  std::ofstream(root_ + "/memory/husk/husk-a/memory.usage_in_bytes") << "4096\n";
  std::ofstream(root_ + "/memory/husk/husk-a/memory.stat")
      << "rss 1\ntotal_rss 2048\ninactive_file 1\ntotal_inactive_file 1024\ntotal_pgfault 7\ntotal_pgmajfault 3\n";
  HostUsage usage = cgroups_->Usage("", "a");
  EXPECT_EQ(usage.cpu_nanoseconds, 5000U);
  EXPECT_EQ(usage.memory_bytes, 4096U);
  EXPECT_EQ(usage.anonymous_bytes, 2048U);
  EXPECT_EQ(usage.inactive_file_bytes, 1024U);
  EXPECT_EQ(usage.page_faults, 7U);
  EXPECT_EQ(usage.major_page_faults, 3U);
  std::ofstream(root_ + "/unified/husk/husk-a/cpu.stat") << "usage_usec 8\nuser_usec 1\n";
  std::ofstream(root_ + "/unified/husk/husk-a/memory.current") << "8192\n";
  std::ofstream(root_ + "/unified/husk/husk-a/memory.stat") << "anon 4096\ninactive_file 2048\npgfault 9\n";
  usage = cgroups_->Usage("", "a");
  EXPECT_EQ(usage.cpu_nanoseconds, 8000U);
  EXPECT_EQ(usage.memory_bytes, 8192U);
  EXPECT_EQ(usage.anonymous_bytes, 4096U);
  EXPECT_EQ(usage.inactive_file_bytes, 2048U);
  EXPECT_EQ(usage.page_faults, 9U);
  EXPECT_FALSE(cgroups_->Usage("", "b").memory_bytes.has_value());
}

TEST_F(CgroupTree, RefusesPathsThatLeaveTheTree) {
  for (const char* bad : {"/a/../b", "..", "/..", "./a", "/a/."}) {
    EXPECT_TRUE(absl::IsInvalidArgument(cgroups_->Create(bad, "a").status())) << bad;
    EXPECT_TRUE(absl::IsInvalidArgument(cgroups_->Remove(Soon(), bad, "a"))) << bad;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(cgroups_->Create("", "../x").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(cgroups_->Create("", "").status()));
}

TEST_F(CgroupTree, AFailureInOneHierarchyLeavesNothingInTheOthers) {
  fs::remove(root_ + "/unified");
  std::ofstream(root_ + "/unified") << "not a directory";
  EXPECT_FALSE(cgroups_->Create("/p", "a").ok());
  EXPECT_FALSE(fs::exists(root_ + "/cpu/p/husk-a"));
  EXPECT_FALSE(fs::exists(root_ + "/memory/p/husk-a"));
}

TEST_F(CgroupTree, RemovingTheDefaultParentDoesNotDisturbOthersWhoNeedIt) {
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([this, thread] {
      for (int round = 0; round < 50; ++round) {
        const std::string id = absl::StrCat("t", thread, "-", round);
        EXPECT_TRUE(cgroups_->Create("", id).ok());
        EXPECT_TRUE(cgroups_->Remove(Soon(), "", id).ok());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(Left("/cpu"), IsEmpty());
}

TEST(Cgroup, WithoutAnyHierarchyFails) {
  EXPECT_TRUE(absl::IsFailedPrecondition(NewHostCgroups("/husk", "/dev/null")->Create("", "a").status()));
}

// The groups of this machine, with a process of ours inside.
class RealCgroup : public testing::Test {
 protected:
  void SetUp() override {
    parent_ = absl::StrCat("/husk-test-", getpid());
    cgroups_ = NewHostCgroups(parent_);
    files_ = cgroups_->Create("", "real");
    if (absl::IsFailedPrecondition(files_.status())) GTEST_SKIP() << files_.status();
    ASSERT_TRUE(files_.ok()) << files_.status();
    child_ = fork();
    if (child_ == 0) {
      pause();
      _exit(0);
    }
  }
  void TearDown() override {
    EndChild();
    EXPECT_TRUE(cgroups_->Remove(Soon(), "", "real").ok());
  }
  void EndChild() {
    if (child_ <= 0) return;
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    child_ = -1;
  }

  std::string parent_;
  std::unique_ptr<HostCgroups> cgroups_;
  StatusOr<std::vector<std::string>> files_;
  pid_t child_ = -1;
};

TEST_F(RealCgroup, TakesAProcessAndGoesWhenItHasEnded) {
  ASSERT_THAT(*files_, testing::Not(IsEmpty()));
  for (const std::string& file : *files_) {
    std::ofstream(file) << child_ << std::flush;
    std::ifstream inside(file);
    pid_t pid = 0;
    inside >> pid;
    EXPECT_EQ(pid, child_) << file;
  }

  // A group with a living process is not removed, and the message says who is there.
  const Status held = cgroups_->Remove(Context::Background().WithTimeout(std::chrono::milliseconds(50)), "", "real");
  EXPECT_TRUE(absl::IsDeadlineExceeded(held)) << held;
  EXPECT_TRUE(absl::StrContains(held.message(), absl::StrCat(child_))) << held;

  std::thread removal([this] { EXPECT_TRUE(cgroups_->Remove(Soon(), "", "real").ok()); });
  EndChild();
  removal.join();
  for (const std::string& file : *files_) {
    EXPECT_FALSE(fs::exists(fs::path(file).parent_path().parent_path())) << file;
  }
}

}  // namespace
}  // namespace husk::sandbox
