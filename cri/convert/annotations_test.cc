#include "cri/convert/annotations.h"

#include <gtest/gtest.h>

#include "cri/config/pod_annotations.h"

namespace husk::cri {
namespace {

Config Node() {
  Config node;
  node.vm.allowed_annotations = {kDefaultVcpusAnnotation, kUnlimitedCpuPercentAnnotation, kDefaultMemoryAnnotation,
                                 kUnlimitedMemoryAnnotation, kScratchSizeAnnotation};
  return node;
}

TEST(Annotations, ChooseWhatTheyNameAndNothingElse) {
  const auto none = VmChoicesFromAnnotations({{"a", "b"}}, Node());
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(*none, sandbox::VmChoices());
  // The node's own value is a choice too: the node's may change.
  const auto same = VmChoicesFromAnnotations({{kDefaultMemoryAnnotation, "256Mi"}}, Node());
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(*same, (sandbox::VmChoices{.default_memory_bytes = std::uint64_t{256} << 20}));
}

TEST(Annotations, AllOfThem) {
  const auto all = VmChoicesFromAnnotations({{kDefaultVcpusAnnotation, "2"},
                                             {kUnlimitedCpuPercentAnnotation, "100"},
                                             {kDefaultMemoryAnnotation, "1Gi"},
                                             {kUnlimitedMemoryAnnotation, "0"},
                                             {kScratchSizeAnnotation, "64Mi"}},
                                            Node());
  ASSERT_TRUE(all.ok()) << all.status();
  Config every_cpu;
  every_cpu.vm.unlimited_cpu_percent = 100;
  EXPECT_EQ(all->default_vcpus, 2U);
  EXPECT_EQ(all->unlimited_vcpus, UnlimitedVcpus(every_cpu));
  EXPECT_GE(*all->unlimited_vcpus, 1U);
  EXPECT_EQ(all->default_memory_bytes, std::uint64_t{1} << 30);
  EXPECT_EQ(all->unlimited_memory_bytes, 0U) << "half of the maximum";
  EXPECT_EQ(all->scratch_bytes, std::uint64_t{64} << 20);
}

TEST(Annotations, ARefusalIsPassedOn) {
  EXPECT_TRUE(absl::IsInvalidArgument(VmChoicesFromAnnotations({{"husk.dev/what", "1"}}, Node()).status()));
  EXPECT_TRUE(absl::IsPermissionDenied(VmChoicesFromAnnotations({{kDefaultVcpusAnnotation, "1"}}, Config()).status()));
}

}  // namespace
}  // namespace husk::cri
