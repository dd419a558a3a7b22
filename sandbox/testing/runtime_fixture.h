// A runtime over fakes, on a directory of its own, that can die and come again.
#ifndef HUSK_SANDBOX_TESTING_RUNTIME_FIXTURE_H_
#define HUSK_SANDBOX_TESTING_RUNTIME_FIXTURE_H_

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>

#include "agent/client/fake_agent.h"
#include "hypervisor/fake/fake_hypervisor.h"
#include "sandbox/network/fake_network.h"
#include "sandbox/runtime.h"
#include "sandbox/testing/fake_cgroups.h"
#include "sandbox/testing/fake_images.h"

namespace husk::sandbox {

class RuntimeFixture : public ::testing::Test {
 protected:
  RuntimeFixture() {
    std::string pattern = (std::filesystem::temp_directory_path() / "husk-runtime-XXXXXX").string();
    if (mkdtemp(pattern.data()) != nullptr) directory_ = pattern;
    options_.root_directory = directory_ + "/root";
    options_.state_directory = directory_ + "/state";
    options_.scratch_bytes = std::uint64_t{4} << 20;
    options_.maximum_vcpus = 4;
    options_.maximum_memory_bytes = std::uint64_t{1} << 30;
    images_.Add("app", {.command = {"/app"}, .stop_signal = "SIGINT"});
    images_.Add("other", {.command = {"/other"}});
  }
  ~RuntimeFixture() override {
    runtime_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  void SetUp() override { Start(); }

  // A new process takes over. `parts`: others than the fakes themselves.
  void Start(std::optional<RuntimeParts> parts = std::nullopt) {
    hypervisor_ = std::make_unique<hypervisor::FakeHypervisor>(machine_);
    auto runtime = NewRuntime(options_, parts.value_or(FakeParts()));
    ASSERT_TRUE(runtime.ok()) << runtime.status();
    runtime_ = *std::move(runtime);
    const Status recovered = runtime_->Recover(context_);
    ASSERT_TRUE(recovered.ok()) << recovered;
  }
  // The process ends, and another one takes over.
  void Restart() {
    runtime_.reset();
    Start();
  }
  RuntimeParts FakeParts() {
    return {.hypervisor = hypervisor_.get(),
            .agents = &agents_,
            .images = &images_,
            .network = &network_,
            .cgroups = &cgroups_};
  }

  [[nodiscard]] PodConfig Pod(const std::string& name) const {
    PodConfig config;
    config.metadata = {.name = name, .uid = "uid-" + name, .kubernetes_namespace = "default"};
    config.hostname = name;
    config.log_directory = directory_ + "/logs/" + name;
    config.labels = {{"name", name}};
    return config;
  }
  static ContainerConfig Config(const std::string& name) {
    ContainerConfig config;
    config.metadata.name = name;
    config.image = "app";
    config.log_path = name + ".log";
    return config;
  }
  std::string RunPod(const std::string& name = "pod") {
    const auto id = runtime_->RunPod(context_, Pod(name));
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or("");
  }
  std::string CreateContainer(const std::string& pod_id, const std::string& name = "main") {
    const auto id = runtime_->CreateContainer(context_, pod_id, Config(name));
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or("");
  }
  std::string RunContainer(const std::string& pod_id, const std::string& name = "main") {
    std::string id = CreateContainer(pod_id, name);
    const Status started = runtime_->StartContainer(context_, id);
    EXPECT_TRUE(started.ok()) << started;
    return id;
  }

  agent::FakeGuest& Guest(const std::string& pod_id) {
    return agents_.guest(options_.state_directory + "/pods/" + pod_id + "/agent.sock");
  }
  ContainerStatus StatusOf(const std::string& container_id) {
    const auto status = runtime_->GetContainer(container_id, false);
    EXPECT_TRUE(status.ok()) << status.status();
    return status.value_or(ContainerStatus());
  }
  PodState StateOf(const std::string& pod_id) {
    const auto status = runtime_->GetPod(pod_id, false);
    EXPECT_TRUE(status.ok()) << status.status();
    return status.ok() ? status->state : PodState::kNotReady;
  }
  // Half a minute is a hang, not an expectation.
  static bool Eventually(const std::function<bool()>& condition) {
    const auto until = Context::Clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      if (Context::Clock::now() >= until) return false;
      SleepFor(Context::Background(), std::chrono::milliseconds(5)).IgnoreError();
    }
    return true;
  }
  bool AwaitExit(const std::string& container_id) {
    return Eventually([&] { return StatusOf(container_id).state == ContainerState::kExited; });
  }
  [[nodiscard]] std::string Log(const std::string& pod_name, const std::string& container_name) const {
    std::ifstream file(directory_ + "/logs/" + pod_name + "/" + container_name + ".log");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  static std::size_t Entries(const std::string& path) {
    std::error_code error;
    const auto begin = std::filesystem::directory_iterator(path, error);
    return error ? 0 : static_cast<std::size_t>(std::distance(begin, std::filesystem::directory_iterator()));
  }
  // Nothing of any pod is left: what a pod takes is given back when it goes.
  void ExpectNothingLeft() {
    EXPECT_EQ(machine_.alive_count(), 0);
    EXPECT_EQ(network_.namespaces(), 0U);
    EXPECT_EQ(network_.attachments(), 0U);
    EXPECT_EQ(cgroups_.count(), 0U);
    EXPECT_EQ(images_.leases(), 0);
    EXPECT_EQ(Entries(options_.root_directory + "/pods"), 0U);
    EXPECT_EQ(Entries(options_.state_directory + "/pods"), 0U);
    EXPECT_TRUE(runtime_->ListPods({}).empty());
    EXPECT_TRUE(runtime_->ListContainers({}).empty());
  }
  void RemoveAllPods() {
    for (const PodStatus& pod : runtime_->ListPods({})) {
      const Status removed = runtime_->RemovePod(context_, pod.id);
      EXPECT_TRUE(removed.ok()) << removed;
    }
  }

  const Context context_ = Context::Background("test").WithTimeout(std::chrono::minutes(4));
  std::string directory_;
  RuntimeOptions options_;
  hypervisor::FakeMachine machine_;
  agent::FakeAgentConnector agents_;
  FakeNetwork network_;
  FakeImages images_;
  FakeCgroups cgroups_;
  std::unique_ptr<hypervisor::FakeHypervisor> hypervisor_;
  std::unique_ptr<Runtime> runtime_;  // last: it uses the fakes
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_TESTING_RUNTIME_FIXTURE_H_
