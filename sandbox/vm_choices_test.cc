// Pods that choose how large their VMs are made. docs/adr/0127.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>

#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

class VmChoicesTest : public RuntimeFixture {
 protected:
  std::string RunWith(const std::string& name, const VmChoices& choices) {
    PodConfig config = Pod(name);
    config.vm_choices = choices;
    const auto id = runtime_->RunPod(context_, config);
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or("");
  }
  VmFigures Vm(const std::string& pod_id) {
    const auto stats = runtime_->GetPodStats(context_, pod_id);
    EXPECT_TRUE(stats.ok() && stats->vm);
    return stats.ok() && stats->vm ? *stats->vm : VmFigures();
  }
  [[nodiscard]] std::uint64_t ScratchBytes(const std::string& pod_id) const {
    std::uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(options_.root_directory + "/pods/" + pod_id)) {
      bytes = std::max<std::uint64_t>(bytes, entry.file_size());
    }
    return bytes;
  }
};

TEST_F(VmChoicesTest, AreForThatPodAndTheRestIsTheNodes) {
  const std::string plain = RunPod("plain");
  const std::string larger = RunWith("larger", {.default_vcpus = 3, .default_memory_bytes = 384 * kMebibyte});
  const std::string roomy = RunWith("roomy", {.scratch_bytes = 8 * kMebibyte});
  EXPECT_EQ(Vm(plain).memory_bytes, 256 * kMebibyte);
  EXPECT_EQ(Vm(plain).vcpus, 1U);
  EXPECT_EQ(Vm(larger).memory_bytes, 384 * kMebibyte);
  EXPECT_EQ(Vm(larger).vcpus, 3U);
  EXPECT_EQ(Vm(roomy).memory_bytes, 256 * kMebibyte);
  EXPECT_EQ(cgroups_.limits(larger).memory_bytes - cgroups_.limits(plain).memory_bytes, 128 * kMebibyte * 65 / 64);
  EXPECT_EQ(ScratchBytes(plain), 4 * kMebibyte);
  EXPECT_EQ(ScratchBytes(roomy), 8 * kMebibyte);
}

TEST_F(VmChoicesTest, HoldForResizesAndOverARestart) {
  const std::string pod = RunWith("larger", {.default_vcpus = 2, .default_memory_bytes = 384 * kMebibyte});
  const auto check = [&] {
    ContainerConfig config = Config("limited");
    config.resources.memory_limit_bytes = static_cast<std::int64_t>(64 * kMebibyte);
    config.resources.cpu_quota = 50'000;
    config.resources.cpu_period = 100'000;
    const auto limited = runtime_->CreateContainer(context_, pod, config);
    ASSERT_TRUE(limited.ok()) << limited.status();
    EXPECT_EQ(Vm(pod).memory_bytes, 384 * kMebibyte) << "no less than the pod's default";
    EXPECT_EQ(Vm(pod).wanted_vcpus, 2U);
    // Beside one with a limit it is the pod's default that a container without one has.
    const std::string unlimited = CreateContainer(pod, "unlimited");
    EXPECT_EQ(Vm(pod).memory_bytes, (384 + 68) * kMebibyte);
    ASSERT_TRUE(runtime_->RemoveContainer(context_, unlimited).ok());
    ASSERT_TRUE(runtime_->RemoveContainer(context_, *limited).ok());
    EXPECT_EQ(Vm(pod).memory_bytes, 384 * kMebibyte);
    EXPECT_EQ(Vm(pod).wanted_memory_bytes, 384 * kMebibyte);
  };
  check();
  options_.default_vcpus = 3;
  Restart();
  check();
}

TEST_F(VmChoicesTest, CpusOfContainersWithoutALimit) {
  const std::string pod = RunWith("fast", {.unlimited_vcpus = 4});
  EXPECT_EQ(Vm(pod).vcpus, 4U);
  options_.unlimited_vcpus = 3;
  Restart();
  const std::string plain = RunPod("plain");
  EXPECT_EQ(Vm(plain).vcpus, 3U);
  const std::string slow = RunWith("slow", {.unlimited_vcpus = 0});
  EXPECT_EQ(Vm(slow).vcpus, 1U) << "the default";
}

TEST_F(VmChoicesTest, MemoryOnDemandEndsAtThePodsCeiling) {
  options_.unlimited_memory_bytes = options_.default_memory_bytes;
  Restart();
  const auto grows = [&](const std::string& pod) {
    CreateContainer(pod);
    const auto resized = Guest(pod).resized();
    return resized && resized->memory_can_grow();
  };
  EXPECT_FALSE(grows(RunPod("plain")));
  EXPECT_TRUE(grows(RunWith("growing", {.unlimited_memory_bytes = 512 * kMebibyte})));
  EXPECT_TRUE(grows(RunWith("half", {.unlimited_memory_bytes = 0})));
}

TEST_F(VmChoicesTest, TheNodesMaximaHold) {
  const std::string pod = RunWith("huge", {.default_vcpus = 64, .default_memory_bytes = std::uint64_t{1} << 40});
  EXPECT_EQ(Vm(pod).vcpus, 4U);
  EXPECT_EQ(Vm(pod).memory_bytes, 1024 * kMebibyte);
}

}  // namespace
}  // namespace husk::sandbox
