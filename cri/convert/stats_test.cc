#include "cri/convert/stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "cri/convert/metrics.h"

namespace husk::cri {
namespace {

namespace api = ::runtime::v1;
using ::testing::Contains;

constexpr std::uint64_t kSecond = 1'000'000'000;

sandbox::CgroupFigures Cgroup() {
  sandbox::Pressure pressure;
  pressure.some = {.average10 = 1.5, .average60 = 2, .average300 = 3, .total_nanoseconds = 4 * kSecond};
  pressure.full.total_nanoseconds = 2 * kSecond;
  sandbox::CgroupFigures cgroup;
  cgroup.cpu = {.usage_nanoseconds = 7 * kSecond,
                .user_nanoseconds = 5 * kSecond,
                .system_nanoseconds = 2 * kSecond,
                .usage_nano_cores = 300,
                .periods = 10,
                .throttled_periods = 3,
                .throttled_nanoseconds = 1 * kSecond,
                .pressure = pressure};
  cgroup.memory = {.usage_bytes = 1000,
                   .working_set_bytes = 800,
                   .resident_bytes = 600,
                   .cache_bytes = 300,
                   .mapped_file_bytes = 100,
                   .kernel_bytes = 50,
                   .peak_bytes = 1200,
                   .swap_bytes = 0,
                   .swap_limit_bytes = 64,
                   .page_faults = 20,
                   .major_page_faults = 2,
                   .limit_failures = 1,
                   .out_of_memory_kills = 0,
                   .pressure = pressure};
  cgroup.io = {.read_bytes = 11, .written_bytes = 22, .reads = 3, .writes = 4, .pressure = pressure};
  cgroup.processes = 5;
  cgroup.threads = 9;
  return cgroup;
}

sandbox::ContainerStats Container() {
  sandbox::ContainerStats stats;
  stats.status.id = "container-id";
  stats.status.started_at = 3 * static_cast<std::int64_t>(kSecond);
  stats.status.image_reference = "registry/app@sha256:1";
  stats.status.config.metadata = {.name = "main", .attempt = 2};
  stats.status.config.labels = {{"l", "v"}};
  stats.status.config.annotations = {{"a", "b"}};
  stats.status.config.resources = {
      .cpu_period = 100'000, .cpu_quota = 50'000, .cpu_shares = 512, .memory_limit_bytes = 2000};
  stats.timestamp = 12 * static_cast<std::int64_t>(kSecond);
  stats.figures.cgroup = Cgroup();
  stats.figures.writable_layer = sandbox::FileFigures{.timestamp = 11, .used_bytes = 4096, .inodes = 7};
  return stats;
}

sandbox::PodStats Pod() {
  sandbox::PodStats stats;
  stats.status.id = "pod-id";
  stats.status.created_at = 2 * static_cast<std::int64_t>(kSecond);
  stats.status.config.metadata = {.name = "web", .uid = "u", .kubernetes_namespace = "shop", .attempt = 1};
  stats.status.config.resources = {
      .cpu_period = 100'000, .cpu_quota = 50'000, .cpu_shares = 512, .memory_limit_bytes = 900};
  stats.status.config.overhead.memory_limit_bytes = 100;
  stats.figures.timestamp = 13 * static_cast<std::int64_t>(kSecond);
  stats.figures.cgroup = Cgroup();
  stats.figures.interfaces = {{.name = "eth1", .received_bytes = 1}, {.name = "eth0", .sent_bytes = 42}};
  stats.figures.scratch_capacity_bytes = 1 << 30;
  stats.default_interface = "eth0";
  stats.containers = {Container()};
  stats.vm = {.memory_bytes = 4000,
              .requested_memory_bytes = 3000,
              .wanted_memory_bytes = 2000,
              .used_memory_bytes = 1000,
              .vcpus = 4,
              .online_vcpus = 3,
              .wanted_vcpus = 2,
              .resizing = true};
  return stats;
}

TEST(StatsToProto, AContainersFigures) {
  api::ContainerStats out;
  ContainerStatsToProto(Container(), "/var/lib/husk", &out);
  EXPECT_EQ(out.attributes().id(), "container-id");
  EXPECT_EQ(out.attributes().metadata().name(), "main");
  EXPECT_EQ(out.attributes().metadata().attempt(), 2U);
  EXPECT_EQ(out.attributes().labels().at("l"), "v");
  EXPECT_EQ(out.attributes().annotations().at("a"), "b");
  EXPECT_EQ(out.cpu().timestamp(), static_cast<std::int64_t>(12 * kSecond));
  EXPECT_EQ(out.cpu().usage_core_nano_seconds().value(), 7 * kSecond);
  EXPECT_EQ(out.cpu().usage_nano_cores().value(), 300U);
  EXPECT_DOUBLE_EQ(out.cpu().psi().some().avg10(), 1.5);
  EXPECT_EQ(out.cpu().psi().full().total(), 2 * kSecond);
  EXPECT_EQ(out.memory().working_set_bytes().value(), 800U);
  EXPECT_EQ(out.memory().available_bytes().value(), 1200U);
  EXPECT_EQ(out.memory().usage_bytes().value(), 1000U);
  EXPECT_EQ(out.memory().rss_bytes().value(), 600U);
  EXPECT_EQ(out.memory().page_faults().value(), 20U);
  EXPECT_EQ(out.memory().major_page_faults().value(), 2U);
  EXPECT_TRUE(out.swap().has_swap_usage_bytes());
  EXPECT_EQ(out.swap().swap_available_bytes().value(), 64U);
  EXPECT_EQ(out.io().psi().some().total(), 4 * kSecond);
  EXPECT_EQ(out.writable_layer().timestamp(), 11);
  EXPECT_EQ(out.writable_layer().fs_id().mountpoint(), "/var/lib/husk");
  EXPECT_EQ(out.writable_layer().used_bytes().value(), 4096U);
  EXPECT_EQ(out.writable_layer().inodes_used().value(), 7U);
}

TEST(StatsToProto, WhatIsNotKnownIsAbsent) {
  sandbox::ContainerStats stats = Container();
  stats.figures = {};
  stats.timestamp = 0;
  api::ContainerStats out;
  ContainerStatsToProto(stats, "/d", &out);
  EXPECT_TRUE(out.has_attributes());
  EXPECT_FALSE(out.has_cpu() || out.has_memory() || out.has_swap() || out.has_io() || out.has_writable_layer());
  sandbox::PodStats pod = Pod();
  pod.figures = {};
  api::PodSandboxStats pod_out;
  PodStatsToProto(pod, "/d", &pod_out);
  EXPECT_FALSE(pod_out.linux().has_cpu() || pod_out.linux().has_network() || pod_out.linux().has_process());
  EXPECT_EQ(pod_out.linux().containers_size(), 1);
}

TEST(StatsToProto, APodsFigures) {
  api::PodSandboxStats out;
  PodStatsToProto(Pod(), "/d", &out);
  EXPECT_EQ(out.attributes().id(), "pod-id");
  EXPECT_EQ(out.attributes().metadata().namespace_(), "shop");
  EXPECT_EQ(out.attributes().metadata().uid(), "u");
  EXPECT_EQ(out.linux().cpu().usage_core_nano_seconds().value(), 7 * kSecond);
  EXPECT_EQ(out.linux().memory().available_bytes().value(), 200U);
  EXPECT_EQ(out.linux().process().process_count().value(), 5U);
  EXPECT_EQ(out.linux().network().default_interface().name(), "eth0");
  EXPECT_EQ(out.linux().network().default_interface().tx_bytes().value(), 42U);
  ASSERT_EQ(out.linux().network().interfaces_size(), 1);
  EXPECT_EQ(out.linux().network().interfaces(0).name(), "eth1");
  EXPECT_TRUE(out.linux().io().has_psi());
  ASSERT_EQ(out.linux().containers_size(), 1);
  EXPECT_EQ(out.linux().containers(0).attributes().id(), "container-id");
}

std::map<std::string, api::MetricDescriptor> Descriptors() {
  google::protobuf::RepeatedPtrField<api::MetricDescriptor> list;
  MetricDescriptorsToProto(&list);
  std::map<std::string, api::MetricDescriptor> descriptors;
  for (const auto& descriptor : list) {
    EXPECT_FALSE(descriptor.help().empty()) << descriptor.name();
    EXPECT_TRUE(descriptors.emplace(descriptor.name(), descriptor).second) << descriptor.name() << " twice";
  }
  return descriptors;
}

std::map<std::string, std::string> Labels(const api::Metric& metric, const api::MetricDescriptor& descriptor) {
  std::map<std::string, std::string> labels;
  for (int i = 0; i < std::min(metric.label_values_size(), descriptor.label_keys_size()); ++i) {
    labels[descriptor.label_keys(i)] = metric.label_values(i);
  }
  return labels;
}

TEST(Metrics, EachHasADescriptorWhoseLabelsItsValuesMatch) {
  const auto descriptors = Descriptors();
  api::PodSandboxMetrics out;
  PodMetricsToProto(Pod(), &out);
  ASSERT_EQ(out.container_metrics_size(), 1);
  std::set<std::string> seen;
  const auto check = [&](const api::Metric& metric, const std::string& id, const std::string& container) {
    const auto descriptor = descriptors.find(metric.name());
    ASSERT_NE(descriptor, descriptors.end()) << metric.name();
    seen.insert(metric.name());
    ASSERT_EQ(metric.label_values_size(), descriptor->second.label_keys_size()) << metric.name();
    const auto labels = Labels(metric, descriptor->second);
    EXPECT_EQ(labels.at("id"), id) << metric.name();
    EXPECT_EQ(labels.at("container"), container) << metric.name();
    EXPECT_EQ(labels.at("namespace"), "shop") << metric.name();
    EXPECT_EQ(labels.at("pod"), "web") << metric.name();
    EXPECT_GT(metric.timestamp(), 0) << metric.name();
    EXPECT_TRUE(metric.has_value()) << metric.name();
    const bool counter = metric.name().ends_with("_total") || metric.name().ends_with("_failcnt");
    EXPECT_EQ(metric.metric_type(), counter ? api::COUNTER : api::GAUGE) << metric.name();
  };
  for (const api::Metric& metric : out.metrics()) check(metric, "pod-id", "");
  for (const api::Metric& metric : out.container_metrics(0).metrics()) check(metric, "container-id", "main");
  for (const auto& [name, descriptor] : descriptors) EXPECT_THAT(seen, Contains(name)) << "described, and never sent";
}

TEST(Metrics, HaveTheirValuesAndOwnLabels) {
  const auto descriptors = Descriptors();
  api::PodSandboxMetrics out;
  PodMetricsToProto(Pod(), &out);
  std::map<std::string, std::uint64_t> values;
  for (const api::Metric& metric : out.container_metrics(0).metrics()) {
    const auto labels = Labels(metric, descriptors.at(metric.name()));
    const bool fault = labels.contains("failure_type");
    values[metric.name() + (fault ? "/" + labels.at("failure_type") : "")] = metric.value().value();
  }
  EXPECT_EQ(values.at("container_cpu_usage_seconds_total"), 7U);
  EXPECT_EQ(values.at("container_memory_working_set_bytes"), 800U);
  EXPECT_EQ(values.at("container_memory_failures_total/pgfault"), 20U);
  EXPECT_EQ(values.at("container_memory_failures_total/pgmajfault"), 2U);
  EXPECT_EQ(values.at("container_fs_usage_bytes"), 4096U);
  EXPECT_EQ(values.at("container_fs_writes_bytes_total"), 22U);
  EXPECT_EQ(values.at("container_processes"), 5U);
  EXPECT_EQ(values.at("container_start_time_seconds"), 3U);
  EXPECT_EQ(values.at("container_pressure_io_waiting_seconds_total"), 4U);
  EXPECT_EQ(values.at("container_pressure_memory_stalled_seconds_total"), 2U);
  EXPECT_EQ(values.at("container_spec_memory_limit_bytes"), 2000U);
  std::map<std::string, std::uint64_t> sent;
  for (const api::Metric& metric : out.metrics()) {
    if (metric.name() != "container_network_transmit_bytes_total") continue;
    sent[Labels(metric, descriptors.at(metric.name())).at("interface")] = metric.value().value();
  }
  EXPECT_EQ(sent.at("eth0"), 42U);
  EXPECT_EQ(sent.at("eth1"), 0U);
}

TEST(Metrics, TellHowLargeAVmIs) {
  sandbox::PodStats pod = Pod();
  const auto values = [&] {
    api::PodSandboxMetrics out;
    PodMetricsToProto(pod, &out);
    std::map<std::string, std::uint64_t> found;
    for (const api::Metric& metric : out.metrics()) {
      if (metric.name().starts_with("husk_")) found[metric.name()] = metric.value().value();
    }
    return found;
  };
  const std::map<std::string, std::uint64_t> all = {
      {"husk_pod_vm_memory_wanted_bytes", 2000}, {"husk_pod_vm_memory_requested_bytes", 3000},
      {"husk_pod_vm_memory_actual_bytes", 4000}, {"husk_pod_vm_memory_used_bytes", 1000},
      {"husk_pod_vm_vcpus_wanted", 2},           {"husk_pod_vm_vcpus_plugged", 4},
      {"husk_pod_vm_vcpus_online", 3},           {"husk_pod_vm_resizing", 1}};
  EXPECT_EQ(values(), all);
  pod.vm->used_memory_bytes.reset();
  EXPECT_EQ(values().count("husk_pod_vm_memory_used_bytes"), 0U) << "the guest has not said";
  pod.vm.reset();
  EXPECT_TRUE(values().empty());
}

TEST(Metrics, NothingIsSaidOfAPodThatHasNeverAnswered) {
  sandbox::PodStats pod = Pod();
  pod.figures = {};
  pod.containers[0].timestamp = 0;
  api::PodSandboxMetrics out;
  PodMetricsToProto(pod, &out);
  EXPECT_EQ(out.pod_sandbox_id(), "pod-id");
  EXPECT_EQ(out.metrics_size(), 0);
  EXPECT_EQ(out.container_metrics(0).metrics_size(), 0);
}

}  // namespace
}  // namespace husk::cri
