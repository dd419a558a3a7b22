// Against files that stand in for the kernel's.
#include "agent/guest/guest_size.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "agent/guest/files.h"

namespace husk::agent {
namespace {

using ::testing::HasSubstr;

class GuestSizeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-size-XXXXXX";
    base_ = mkdtemp(pattern.data());
    // The first one has no such file: it cannot go offline.
    std::filesystem::create_directories(base_ + "/cpus/cpu0");
    for (const char* other : {"/cpus/cpufreq", "/cpus/cpuidle", "/cpus/power"}) {
      std::filesystem::create_directories(base_ + other);
    }
    std::ofstream(base_ + "/policy") << "contig-zones";
    loop_ = EventLoop::Create().value();
    mark_.emplace(*loop_, MemoryMark::Places{}, [] {});
  }
  void TearDown() override {
    mark_.reset();
    std::filesystem::remove_all(base_);
  }

  void PlugCpu(int number) {
    const std::string cpu = base_ + "/cpus/cpu" + std::to_string(number);
    std::filesystem::create_directories(cpu);
    std::ofstream(cpu + "/online") << "0\n";
  }
  std::string Read(const std::string& path) { return ReadFile(base_ + path).value_or("?"); }
  // Runs until it is answered.
  StatusOr<v1::ResizeGuestResponse> Resize(GuestSize& size, std::uint32_t cpus, bool unmovable = false) {
    v1::ResizeGuestRequest request;
    request.set_cpus(cpus);
    request.set_unmovable_memory(unmovable);
    std::optional<StatusOr<v1::ResizeGuestResponse>> answer;
    size.Resize(request, [&](StatusOr<v1::ResizeGuestResponse> said) {
      answer = std::move(said);
      loop_->Stop();
    });
    if (!answer) loop_->Run();
    return *answer;
  }

  std::string base_;
  std::unique_ptr<EventLoop> loop_;
  std::optional<MemoryMark> mark_;
};

TEST_F(GuestSizeTest, CpusAreOnlineUpToTheNumber) {
  GuestSize size(*loop_, {.cpus = base_ + "/cpus", .online_policy = base_ + "/policy"}, *mark_);
  EXPECT_EQ(size.OnlineCpus(), 1U);
  PlugCpu(1);
  PlugCpu(2);
  EXPECT_EQ(Resize(size, 3)->online_cpus(), 3U);
  EXPECT_EQ(Read("/cpus/cpu2/online").at(0), '1');
  EXPECT_EQ(Resize(size, 2)->online_cpus(), 2U);
  EXPECT_EQ(Read("/cpus/cpu1/online").at(0), '1');
  EXPECT_EQ(Read("/cpus/cpu2/online").at(0), '0');
  EXPECT_EQ(Resize(size, 1)->online_cpus(), 1U);
}

TEST_F(GuestSizeTest, ACpuThatTheKernelDoesNotSeeYetIsWaitedFor) {
  GuestSize size(*loop_, {.cpus = base_ + "/cpus", .online_policy = base_ + "/policy"}, *mark_);
  loop_->After(std::chrono::milliseconds(50), [this] { PlugCpu(1); });
  const auto resized = Resize(size, 2);
  ASSERT_TRUE(resized.ok()) << resized.status();
  EXPECT_EQ(resized->online_cpus(), 2U);
}

TEST_F(GuestSizeTest, WhatIsMeantForMovingIsSetAnewEachTime) {
  GuestSize size(*loop_, {.cpus = base_ + "/cpus", .online_policy = base_ + "/policy"}, *mark_);
  ASSERT_TRUE(Resize(size, 1).ok());
  EXPECT_EQ(Read("/policy").substr(0, 12), "auto-movable");
  ASSERT_TRUE(Resize(size, 1, true).ok());
  EXPECT_EQ(Read("/policy").substr(0, 12), "contig-zones");
}

TEST_F(GuestSizeTest, NoCpuAtAllIsNoSize) {
  GuestSize size(*loop_, {.cpus = base_ + "/cpus", .online_policy = base_ + "/policy"}, *mark_);
  EXPECT_THAT(std::string(Resize(size, 0).status().message()), HasSubstr("cpus"));
}

}  // namespace
}  // namespace husk::agent
