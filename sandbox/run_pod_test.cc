// Pods: run, stop, remove, list; what fails, and what comes twice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

using RunPodTest = RuntimeFixture;

TEST_F(RunPodTest, APodRunsAndGoesWithoutTrace) {
  const std::string id = RunPod("web");
  EXPECT_EQ(id.size(), 64U);
  const auto status = runtime_->GetPod(id.substr(0, 10), true);
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->state, PodState::kReady);
  EXPECT_THAT(status->addresses, ElementsAre("10.88.0.2", "fd00::1"));
  EXPECT_GT(status->created_at, 0);
  EXPECT_EQ(status->config.labels.at("name"), "web");
  EXPECT_THAT(status->information.at("vm"), HasSubstr("\"pid\""));

  const auto vm = machine_.vm(id);
  ASSERT_TRUE(vm.has_value());
  EXPECT_EQ(vm->user, options_.first_user);
  EXPECT_EQ(vm->network_namespace, "/fake/netns/" + id);
  EXPECT_EQ(vm->memory_bytes, options_.default_memory_bytes);
  EXPECT_EQ(vm->scratch.extents.at(0).length, options_.scratch_bytes);
  const auto sandbox = Guest(id).sandbox_config();
  ASSERT_TRUE(sandbox.has_value());
  EXPECT_EQ(sandbox->hostname(), "web");
  EXPECT_EQ(sandbox->interfaces(0).addresses(0), "10.88.0.2/16");
  EXPECT_EQ(sandbox->interfaces(0).routes(0).gateway(), "10.88.0.1");

  ASSERT_TRUE(runtime_->StopPod(context_, id).ok());
  EXPECT_EQ(StateOf(id), PodState::kNotReady);
  EXPECT_EQ(machine_.alive_count(), 0);
  EXPECT_EQ(network_.attachments(), 0U);
  ASSERT_TRUE(runtime_->StopPod(context_, id).ok());
  ASSERT_TRUE(runtime_->RemovePod(context_, id).ok());
  ASSERT_TRUE(runtime_->RemovePod(context_, id).ok());
  ExpectNothingLeft();
  EXPECT_TRUE(absl::IsNotFound(runtime_->GetPod(id, false).status()));
}

TEST_F(RunPodTest, ABootThatTheKubeletsCgroupHasNoRoomForSaysWhatMakesRoom) {
  PodConfig config = Pod("small");
  config.cgroup_parent = "/kubepods/pod1";
  cgroups_.SetLeastMemoryAbove("/kubepods/pod1", {.directory = "/sys/fs/cgroup/kubepods/pod1", .bytes = 64 << 20});
  machine_.FailNext(hypervisor::FakeOperation::kStart, absl::UnavailableError("killed by signal 9"));
  cgroups_.SetOomKillsOfAll(1);
  const auto id = runtime_->RunPod(context_, config);
  EXPECT_TRUE(absl::IsResourceExhausted(id.status())) << id.status();
  for (const char* part : {"for lack of memory", "the cgroup /sys/fs/cgroup/kubepods/pod1 allows 64 MiB",
                           "overhead.podFixed.memory is 450Mi", "killed by signal 9"}) {
    EXPECT_THAT(std::string(id.status().message()), HasSubstr(part));
  }
  ExpectNothingLeft();
  // An end that the kernel's count does not explain keeps its own words.
  machine_.FailNext(hypervisor::FakeOperation::kStart, absl::UnavailableError("no such file"));
  cgroups_.SetOomKillsOfAll(0);
  const auto other = runtime_->RunPod(context_, config);
  EXPECT_TRUE(absl::IsUnavailable(other.status())) << other.status();
}

TEST_F(RunPodTest, UnknownIdsAreFineToStopAndRemove) {
  for (const std::string id : {"", "0123", "../..", "x"}) {
    EXPECT_TRUE(runtime_->StopPod(context_, id).ok());
    EXPECT_TRUE(runtime_->RemovePod(context_, id).ok());
    EXPECT_TRUE(absl::IsNotFound(runtime_->GetPod(id, false).status()));
  }
}

TEST_F(RunPodTest, AnEmptyIdIsNotThePrefixOfTheOnlyPod) {
  const std::string id = RunPod();
  EXPECT_TRUE(runtime_->RemovePod(context_, "").ok());
  EXPECT_EQ(StateOf(id), PodState::kReady);
}

TEST_F(RunPodTest, RefusesWhatNoVmCanDoByTheNameOfTheField) {
  const auto refused = [&](const PodConfig& config, const std::string& field) {
    const auto id = runtime_->RunPod(context_, config);
    EXPECT_EQ(id.status().code(), absl::StatusCode::kInvalidArgument) << id.status();
    EXPECT_THAT(std::string(id.status().message()), HasSubstr(field));
  };
  PodConfig config = Pod("p");
  config.namespaces.network = NamespaceMode::kNode;
  refused(config, "linux.security_context.namespace_options.network: NODE");
  config = Pod("p");
  config.namespaces.pid = NamespaceMode::kNode;
  refused(config, "linux.security_context.namespace_options.pid: NODE");
  config = Pod("p");
  config.namespaces.ipc = NamespaceMode::kNode;
  refused(config, "linux.security_context.namespace_options.ipc: NODE");
  config = Pod("");
  refused(config, "metadata.name");
  config = Pod("p");
  config.log_directory = "relative";
  refused(config, "log_directory");
  ExpectNothingLeft();
}

TEST_F(RunPodTest, AReadyPodIsFoundAgain) {
  const std::string id = RunPod();
  EXPECT_EQ(RunPod(), id);
  EXPECT_THAT(runtime_->ListPods({}), SizeIs(1));
  PodConfig next = Pod("pod");
  next.metadata.attempt = 1;
  EXPECT_NE(*runtime_->RunPod(context_, next), id);
}

TEST_F(RunPodTest, AStoppedPodsNameIsNotReserved) {
  const std::string id = RunPod();
  ASSERT_TRUE(runtime_->StopPod(context_, id).ok());
  const std::string again = RunPod();
  EXPECT_NE(again, id);
  EXPECT_EQ(StateOf(again), PodState::kReady);
  EXPECT_EQ(StateOf(id), PodState::kNotReady);
}

TEST_F(RunPodTest, RepetitionsJoinTheStartUnderWay) {
  machine_.HoldStarts();
  std::vector<std::string> ids(4);
  std::vector<std::thread> callers;
  callers.reserve(ids.size());
  for (auto& id : ids) callers.emplace_back([&] { id = RunPod(); });
  machine_.WaitForHeldStarts(1);
  machine_.ReleaseStarts();
  for (auto& caller : callers) caller.join();
  for (const auto& id : ids) EXPECT_EQ(id, ids[0]);
  EXPECT_THAT(machine_.vms(), SizeIs(1));
}

TEST_F(RunPodTest, AJoinerBeginsAnewWhenTheFirstCallerGivesUp) {
  machine_.HoldStarts();
  std::stop_source first_caller;
  std::thread first([&] {
    const auto id = runtime_->RunPod(context_.WithStopToken(first_caller.get_token()), Pod("pod"));
    EXPECT_TRUE(absl::IsCancelled(id.status())) << id.status();
  });
  machine_.WaitForHeldStarts(1);
  std::string id;
  std::thread second([&] { id = RunPod(); });
  first_caller.request_stop();
  first.join();
  machine_.ReleaseStarts();
  second.join();
  EXPECT_EQ(StateOf(id), PodState::kReady);
  EXPECT_THAT(runtime_->ListPods({}), SizeIs(1));
  RemoveAllPods();
  ExpectNothingLeft();
}

TEST_F(RunPodTest, AStopInterruptsABoot) {
  machine_.HoldStarts();
  std::thread caller([&] {
    const auto id = runtime_->RunPod(context_, Pod("pod"));
    EXPECT_EQ(id.status().code(), absl::StatusCode::kAborted) << id.status();
    EXPECT_THAT(std::string(id.status().message()), HasSubstr("being stopped"));
  });
  machine_.WaitForHeldStarts(1);
  const auto pods = runtime_->ListPods({});
  ASSERT_THAT(pods, SizeIs(1));
  EXPECT_EQ(pods[0].state, PodState::kNotReady);
  EXPECT_TRUE(runtime_->StopPod(context_, pods[0].id).ok());
  caller.join();
  ExpectNothingLeft();
}

TEST_F(RunPodTest, AStopInterruptsTheWaitForTheAgent) {
  agents_.SetGuestSetup([](agent::FakeGuest& guest) { guest.Block("Hello"); });
  std::thread caller([&] { EXPECT_FALSE(runtime_->RunPod(context_, Pod("pod")).ok()); });
  ASSERT_TRUE(Eventually([&] { return machine_.alive_count() == 1; }));
  const auto pods = runtime_->ListPods({});
  ASSERT_THAT(pods, SizeIs(1));
  EXPECT_TRUE(runtime_->RemovePod(context_, pods[0].id).ok());
  caller.join();
  ExpectNothingLeft();
}

TEST_F(RunPodTest, AVmThatDiesDuringItsBootSaysWhy) {
  agents_.SetGuestSetup([](agent::FakeGuest& guest) { guest.Block("Hello"); });
  std::thread caller([&] {
    const auto id = runtime_->RunPod(context_, Pod("pod"));
    EXPECT_TRUE(absl::IsUnavailable(id.status())) << id.status();
    EXPECT_THAT(std::string(id.status().message()), HasSubstr("qemu: out of luck"));
    EXPECT_THAT(std::string(id.status().message()), HasSubstr("console of"));
  });
  ASSERT_TRUE(Eventually([&] { return machine_.alive_count() == 1; }));
  // Only an agent that is already being asked shows the race-free case; either way the call must end.
  const std::string id = machine_.vms().back().id;
  ASSERT_TRUE(Guest(id).WaitForCalls("Hello", 1));
  machine_.KillVm(id, "qemu: out of luck");
  caller.join();
  ExpectNothingLeft();
}

TEST_F(RunPodTest, EveryStepThatFailsIsUndoneAndTheNextTryWorks) {
  const Status failure = absl::InternalError("injected");
  const std::vector<std::function<void()>> faults = {
      [&] { network_.FailNext("CreateNamespace", failure); },
      [&] { network_.FailNext("Attach", failure); },
      [&] { network_.FailNext("CreateTap", failure); },
      [&] { cgroups_.FailNextCreate(failure); },
      [&] { machine_.FailNext(hypervisor::FakeOperation::kStart, failure); },
      [&] { agents_.SetGuestSetup([failure](agent::FakeGuest& guest) { guest.FailNext("Hello", failure); }); },
      [&] {
        agents_.SetGuestSetup([failure](agent::FakeGuest& guest) { guest.FailNext("ConfigureSandbox", failure); });
      },
  };
  for (const auto& fault : faults) {
    fault();
    const auto id = runtime_->RunPod(context_, Pod("pod"));
    EXPECT_THAT(std::string(id.status().message()), HasSubstr("injected"));
    ExpectNothingLeft();
    agents_.SetGuestSetup(nullptr);
  }
  EXPECT_EQ(StateOf(RunPod()), PodState::kReady);
}

TEST_F(RunPodTest, WhatCouldNotBeUndoneIsLeftForARemoval) {
  cgroups_.FailNextCreate(absl::InternalError("injected"));
  network_.FailNext("Detach", absl::InternalError("CNI DEL fails"));
  EXPECT_FALSE(runtime_->RunPod(context_, Pod("pod")).ok());
  auto pods = runtime_->ListPods({});
  ASSERT_THAT(pods, SizeIs(1));
  EXPECT_EQ(pods[0].state, PodState::kNotReady);
  EXPECT_EQ(network_.attachments(), 1U);
  // It is in nobody's way.
  const std::string id = RunPod();
  EXPECT_TRUE(runtime_->RemovePod(context_, pods[0].id).ok());
  EXPECT_TRUE(runtime_->RemovePod(context_, id).ok());
  ExpectNothingLeft();
}

TEST_F(RunPodTest, ARemovalThatFailsHalfwayCanBeRepeated) {
  const std::string id = RunPod();
  RunContainer(id);
  const Status failure = absl::InternalError("injected");
  machine_.FailNext(hypervisor::FakeOperation::kKill, failure);
  EXPECT_FALSE(runtime_->RemovePod(context_, id).ok());
  network_.FailNext("Detach", failure);
  EXPECT_FALSE(runtime_->RemovePod(context_, id).ok());
  cgroups_.FailNextRemove(failure);
  EXPECT_FALSE(runtime_->RemovePod(context_, id).ok());
  network_.FailNext("RemoveNamespace", failure);
  EXPECT_FALSE(runtime_->RemovePod(context_, id).ok());
  EXPECT_THAT(runtime_->ListPods({}), SizeIs(1));
  EXPECT_TRUE(runtime_->RemovePod(context_, id).ok());
  ExpectNothingLeft();
}

TEST_F(RunPodTest, UsersAreNotSharedAndComeBack) {
  const std::string first = RunPod("a");
  const std::string second = RunPod("b");
  EXPECT_NE(machine_.vm(first)->user, machine_.vm(second)->user);
  const uid_t user = machine_.vm(first)->user;
  ASSERT_TRUE(runtime_->RemovePod(context_, first).ok());
  EXPECT_EQ(machine_.vm(RunPod("c"))->user, user);
}

TEST_F(RunPodTest, ListsByFilter) {
  const std::string a = RunPod("a");
  const std::string b = RunPod("b");
  ASSERT_TRUE(runtime_->StopPod(context_, b).ok());
  EXPECT_THAT(runtime_->ListPods({}), SizeIs(2));
  EXPECT_EQ(runtime_->ListPods({.labels = {{"name", "b"}}}).at(0).id, b);
  EXPECT_EQ(runtime_->ListPods({.state = PodState::kReady}).at(0).id, a);
  EXPECT_EQ(runtime_->ListPods({.id = b.substr(0, 13)}).at(0).id, b);
  EXPECT_THAT(runtime_->ListPods({.id = a, .labels = {{"name", "b"}}}), SizeIs(0));
}

TEST_F(RunPodTest, ManyPodsComeAndGoAtOnce) {
  constexpr int kPods = 12;
  std::vector<std::thread> threads;
  threads.reserve(kPods);
  for (int index = 0; index < kPods; ++index) {
    threads.emplace_back([&, index] {
      const std::string id = RunPod("pod-" + std::to_string(index));
      RunContainer(id);
      runtime_->ListContainers({});
      EXPECT_TRUE(runtime_->RemovePod(context_, id).ok());
    });
  }
  for (auto& thread : threads) thread.join();
  ExpectNothingLeft();
}

TEST_F(RunPodTest, AnEndInterruptsWhatIsUnderWayAndCleansUp) {
  machine_.HoldStarts();
  std::thread caller([&] { EXPECT_FALSE(runtime_->RunPod(context_, Pod("pod")).ok()); });
  machine_.WaitForHeldStarts(1);
  runtime_->Detach();
  caller.join();
  EXPECT_EQ(machine_.alive_count(), 0);
  EXPECT_TRUE(absl::IsUnavailable(runtime_->RunPod(context_, Pod("late")).status()));
  Restart();
  ExpectNothingLeft();
}

}  // namespace
}  // namespace husk::sandbox
