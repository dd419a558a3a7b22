// Statistics, metrics, and lists that are streamed.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cri/service/service_fixture.h"

namespace husk::cri {
namespace {

namespace api = ::runtime::v1;
using grpc::StatusCode;

TEST_F(Service, StatsAndMetricsOfPodsAndContainers) {
  constexpr std::int64_t kTimestamp = 5'000'000'000;
  sandbox::PodFigures figures;
  figures.timestamp = kTimestamp;
  figures.cgroup.cpu.usage_nanoseconds = 2'000'000'000;
  figures.containers["container-main"].cgroup.memory.usage_bytes = 4096;
  runtime_.figures["pod-of-web"] = figures;
  Start();
  api::RunPodSandboxResponse made;
  ASSERT_TRUE(Call(&Runtime::RunPodSandbox, Pod("web"), &made).ok());
  api::CreateContainerRequest create;
  create.set_pod_sandbox_id(made.pod_sandbox_id());
  create.mutable_config()->mutable_metadata()->set_name("main");
  create.mutable_config()->mutable_image()->set_image("app");
  api::CreateContainerResponse created;
  ASSERT_TRUE(Call(&Runtime::CreateContainer, create, &created).ok());

  api::ContainerStatsRequest container;
  api::ContainerStatsResponse container_stats;
  EXPECT_EQ(Call(&Runtime::ContainerStats, container, &container_stats).error_code(), StatusCode::INVALID_ARGUMENT);
  container.set_container_id("none");
  EXPECT_EQ(Call(&Runtime::ContainerStats, container, &container_stats).error_code(), StatusCode::NOT_FOUND);
  container.set_container_id(created.container_id());
  ASSERT_TRUE(Call(&Runtime::ContainerStats, container, &container_stats).ok());
  EXPECT_EQ(container_stats.stats().memory().usage_bytes().value(), 4096U);
  api::PodSandboxStatsRequest pod;
  api::PodSandboxStatsResponse pod_stats;
  EXPECT_EQ(Call(&Runtime::PodSandboxStats, pod, &pod_stats).error_code(), StatusCode::INVALID_ARGUMENT);
  pod.set_pod_sandbox_id("none");
  EXPECT_EQ(Call(&Runtime::PodSandboxStats, pod, &pod_stats).error_code(), StatusCode::NOT_FOUND);
  pod.set_pod_sandbox_id(made.pod_sandbox_id());
  ASSERT_TRUE(Call(&Runtime::PodSandboxStats, pod, &pod_stats).ok());
  EXPECT_EQ(pod_stats.stats().linux().cpu().timestamp(), kTimestamp);

  api::ListContainerStatsResponse containers;
  ASSERT_TRUE(Call(&Runtime::ListContainerStats, api::ListContainerStatsRequest(), &containers).ok());
  EXPECT_EQ(containers.stats_size(), 1);
  api::ListPodSandboxStatsRequest other;
  other.mutable_filter()->set_id("another");
  api::ListPodSandboxStatsResponse pods;
  ASSERT_TRUE(Call(&Runtime::ListPodSandboxStats, other, &pods).ok());
  EXPECT_EQ(pods.stats_size(), 0);
  api::ListMetricDescriptorsResponse descriptors;
  ASSERT_TRUE(Call(&Runtime::ListMetricDescriptors, api::ListMetricDescriptorsRequest(), &descriptors).ok());
  EXPECT_GT(descriptors.descriptors_size(), 30);
  api::ListPodSandboxMetricsResponse metrics;
  ASSERT_TRUE(Call(&Runtime::ListPodSandboxMetrics, api::ListPodSandboxMetricsRequest(), &metrics).ok());
  ASSERT_EQ(metrics.pod_metrics_size(), 1);
  EXPECT_GT(metrics.pod_metrics(0).metrics_size(), 0);
  EXPECT_EQ(metrics.pod_metrics(0).container_metrics_size(), 1);
}

TEST_F(Service, StatsAndMetricsAreStreamedToo) {
  runtime_.figures["pod-of-web"].timestamp = 1;
  Start();
  api::RunPodSandboxResponse made;
  ASSERT_TRUE(Call(&Runtime::RunPodSandbox, Pod("web"), &made).ok());
  grpc::ClientContext containers_context;
  const auto containers = runtime_stub_->StreamContainerStats(&containers_context, api::StreamContainerStatsRequest());
  api::StreamContainerStatsResponse none;
  EXPECT_FALSE(containers->Read(&none));
  EXPECT_TRUE(containers->Finish().ok());
  grpc::ClientContext pods_context;
  const auto pods = runtime_stub_->StreamPodSandboxStats(&pods_context, api::StreamPodSandboxStatsRequest());
  api::StreamPodSandboxStatsResponse pod;
  ASSERT_TRUE(pods->Read(&pod));
  EXPECT_EQ(pod.pod_sandbox_stats(0).attributes().id(), made.pod_sandbox_id());
  EXPECT_FALSE(pods->Read(&pod));
  EXPECT_TRUE(pods->Finish().ok());
  grpc::ClientContext metrics_context;
  const auto metrics = runtime_stub_->StreamPodSandboxMetrics(&metrics_context, api::StreamPodSandboxMetricsRequest());
  api::StreamPodSandboxMetricsResponse metric;
  ASSERT_TRUE(metrics->Read(&metric));
  EXPECT_EQ(metric.pod_sandbox_metrics(0).pod_sandbox_id(), made.pod_sandbox_id());
  EXPECT_FALSE(metrics->Read(&metric));
  EXPECT_TRUE(metrics->Finish().ok());
}

TEST_F(Service, StreamedListsComeInPiecesAndWhole) {
  constexpr int kImages = 50;
  for (int i = 0; i < kImages; ++i) {
    images::Image image{.id = absl::StrCat("sha256:", i), .size_bytes = 1};
    // 50 images of 100 KB do not fit into one piece.
    image.repository_tags.push_back(std::string(100'000, 'a') + absl::StrCat(":", i));
    images_.all.push_back(image);
  }
  Start();
  grpc::ClientContext context;
  const auto stream = image_stub_->StreamImages(&context, api::StreamImagesRequest());
  api::StreamImagesResponse piece;
  std::vector<std::string> ids;
  int pieces = 0;
  while (stream->Read(&piece)) {
    ++pieces;
    EXPECT_GT(piece.images_size(), 0);
    EXPECT_LT(piece.ByteSizeLong(), std::size_t{2} << 20);
    for (const auto& image : piece.images()) ids.push_back(image.id());
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_GT(pieces, 3);
  ASSERT_EQ(ids.size(), static_cast<std::size_t>(kImages));
  for (int i = 0; i < kImages; ++i) EXPECT_EQ(ids[static_cast<std::size_t>(i)], absl::StrCat("sha256:", i));
}

TEST_F(Service, StreamedListsTakeFiltersAndMayBeEmpty) {
  images_.all.push_back({.id = "sha256:1", .size_bytes = 1});
  images_.all.push_back({.id = "sha256:2", .size_bytes = 1});
  Start();
  grpc::ClientContext images_context;
  api::StreamImagesRequest wanted;
  wanted.mutable_filter()->mutable_image()->set_image("sha256:2");
  const auto images = image_stub_->StreamImages(&images_context, wanted);
  api::StreamImagesResponse piece;
  ASSERT_TRUE(images->Read(&piece));
  ASSERT_EQ(piece.images_size(), 1);
  EXPECT_EQ(piece.images(0).id(), "sha256:2");
  EXPECT_FALSE(images->Read(&piece));
  EXPECT_TRUE(images->Finish().ok());

  grpc::ClientContext empty_context;
  const auto containers = runtime_stub_->StreamContainers(&empty_context, api::StreamContainersRequest());
  api::StreamContainersResponse none;
  EXPECT_FALSE(containers->Read(&none));
  EXPECT_TRUE(containers->Finish().ok());

  api::RunPodSandboxResponse made;
  ASSERT_TRUE(Call(&Runtime::RunPodSandbox, Pod("web"), &made).ok());
  grpc::ClientContext pods_context;
  const auto pods = runtime_stub_->StreamPodSandboxes(&pods_context, api::StreamPodSandboxesRequest());
  api::StreamPodSandboxesResponse pod;
  ASSERT_TRUE(pods->Read(&pod));
  ASSERT_EQ(pod.pod_sandboxes_size(), 1);
  EXPECT_EQ(pod.pod_sandboxes(0).id(), made.pod_sandbox_id());
  EXPECT_FALSE(pods->Read(&pod));
  EXPECT_TRUE(pods->Finish().ok());
}

}  // namespace
}  // namespace husk::cri
