#include "cri/config/pod_annotations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace husk::cri {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

Config Node() {
  Config node;
  node.vm.allowed_annotations = {kDefaultVcpusAnnotation, kUnlimitedCpuPercentAnnotation, kDefaultMemoryAnnotation,
                                 kUnlimitedMemoryAnnotation, kScratchSizeAnnotation};
  node.vm.maximum_vcpus = 4;
  node.vm.maximum_memory = 4096 * kMebibyte;
  return node;
}

TEST(PodAnnotations, AreTheKeysOfTheSameNames) {
  const auto config = ConfigForPod(Node(), {{"husk.dev/default-vcpus", "3"},
                                            {"husk.dev/unlimited-cpu-percent", "50"},
                                            {"husk.dev/default-memory", "512Mi"},
                                            {"husk.dev/unlimited-memory", "2Gi"},
                                            {"husk.dev/scratch-size", "20Gi"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->vm.default_vcpus, 3U);
  EXPECT_EQ(config->vm.unlimited_cpu_percent, 50U);
  EXPECT_EQ(config->vm.default_memory, 512 * kMebibyte);
  EXPECT_EQ(config->vm.unlimited_memory, 2048 * kMebibyte);
  EXPECT_EQ(config->vm.scratch_size, 20480 * kMebibyte);
  EXPECT_EQ(config->vm.maximum_memory, Node().vm.maximum_memory);
}

TEST(PodAnnotations, ThoseOfOthersDoNothing) {
  const auto config = ConfigForPod(
      Node(), {{"husk.dev", "1"}, {"husk.device/default-memory", "512Mi"}, {"example.com/husk.dev/x", "y"}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(ConfigToYaml(*config), ConfigToYaml(Node()));
}

TEST(PodAnnotations, WhatTheNodeDoesNotAllowIsDenied) {
  Config node = Node();
  node.vm.allowed_annotations = {kDefaultMemoryAnnotation};
  EXPECT_TRUE(ConfigForPod(node, {{"husk.dev/default-memory", "512Mi"}}).ok());
  const Status denied = ConfigForPod(node, {{"husk.dev/scratch-size", "20Gi"}}).status();
  EXPECT_TRUE(absl::IsPermissionDenied(denied)) << denied;
  EXPECT_THAT(std::string(denied.message()),
              AllOf(StartsWith("config.annotations[husk.dev/scratch-size]: "), HasSubstr("vm.allowed_annotations")));
  node.vm.allowed_annotations.clear();
  EXPECT_TRUE(absl::IsPermissionDenied(ConfigForPod(node, {{"husk.dev/default-memory", "512Mi"}}).status()));
}

struct Bad {
  const char* name;
  std::string value;
  const char* words;
};

TEST(PodAnnotations, WhatIsWrongIsRefusedByItsName) {
  const Bad cases[] = {
      {"husk.dev/default-memry", "512Mi", "did you mean \"husk.dev/default-memory\"?"},
      {"husk.dev/default_memory", "512Mi", "did you mean \"husk.dev/default-memory\"?"},
      {"husk.dev/maximum-memory", "512Mi", "unknown"},
      {"husk.dev/", "512Mi", "unknown"},
      {"husk.dev/default-memory", "", "a size such as 256Mi"},
      {"husk.dev/default-memory", "lots", "a size such as 256Mi"},
      {"husk.dev/default-memory", "64Mi", "at least 128Mi"},
      {"husk.dev/default-memory", "256M", "multiples of 2Mi"},
      {"husk.dev/default-memory", "8Gi", "vm.default_memory (8Gi) is above vm.maximum_memory (4Gi)"},
      {"husk.dev/unlimited-memory", "5Gi", "vm.unlimited_memory (5Gi) is above vm.maximum_memory (4Gi)"},
      {"husk.dev/default-vcpus", "0", "a number from 1 to 1024"},
      {"husk.dev/default-vcpus", "1.5", "a number from 1 to 1024"},
      {"husk.dev/default-vcpus", "5", "vm.default_vcpus (5) is above vm.maximum_vcpus (4)"},
      {"husk.dev/unlimited-cpu-percent", "101", "a number from 0 to 100"},
      {"husk.dev/scratch-size", "1Mi", "at least 64Mi"},
      {"husk.dev/scratch-size", "1000000001", "a multiple of 4Ki"},
      {"husk.dev/scratch-size", "17Ti", "at most 16Ti"},
      {"husk.dev/scratch-size", "[1Gi]\n\x01", "not \"[1Gi] \\x01\""},
      {"husk.dev/scratch-size", std::string(100'000, '9'), "..."},
  };
  for (const Bad& bad : cases) {
    const Status refused = ConfigForPod(Node(), {{bad.name, bad.value}}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << bad.name << ": " << refused;
    const std::string message(refused.message());
    EXPECT_THAT(message, StartsWith(std::string("config.annotations[") + bad.name + "]: "));
    EXPECT_THAT(message, HasSubstr(bad.words));
    EXPECT_LT(message.size(), 1000U);
    EXPECT_THAT(message, Not(HasSubstr("\n")));
  }
}

TEST(PodAnnotations, TheNodesListHasKnownNamesOnly) {
  for (const std::string& name : Node().vm.allowed_annotations) EXPECT_TRUE(CheckPodAnnotation(name).ok()) << name;
  EXPECT_THAT(std::string(CheckPodAnnotation("default-memory").message()),
              HasSubstr("there are husk.dev/default-vcpus, "));
}

}  // namespace
}  // namespace husk::cri
