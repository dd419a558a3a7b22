// CRI-05: a call whose caller gives up before or after any of its effects on the outside world.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <stop_token>
#include <string>

#include "sandbox/testing/crash_gate.h"
#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

class CancelTest : public RuntimeFixture {
 protected:
  void SetUp() override {}

  // Runs `prepare`, and `act` with a context that is cancelled at the n-th passage of the gate, for n = 1, 2, ... until
  // `act` is done before. After each: `check`, in the same huskd, removal of everything, and nothing may be left.
  void CancelAtEveryPassage(const std::function<void()>& prepare, const std::function<void(const Context&)>& act,
                            const std::function<void()>& check) {
    constexpr int kTooMany = 200;
    int passage = 1;
    for (bool cancelled = true; cancelled && passage < kTooMany; ++passage) {
      SCOPED_TRACE(testing::Message() << "cancelled at passage " << passage);
      Start();
      prepare();
      runtime_.reset();
      cancelled = CancelAt(passage, act, check);
      if (HasFailure()) return;
    }
    EXPECT_GT(passage, 4);
    EXPECT_LT(passage, kTooMany);
  }

 private:
  bool CancelAt(int passage, const std::function<void(const Context&)>& act, const std::function<void()>& check) {
    std::stop_source caller;
    CrashGate gate(CrashGate::GoesOn{}, passage, [&caller] { caller.request_stop(); });
    hypervisor::FakeHypervisor own_hypervisor(machine_);
    GatedHypervisor hypervisor(gate, own_hypervisor);
    GatedNetwork network(gate, network_);
    GatedCgroups cgroups(gate, cgroups_);
    GatedAgents agents(gate, agents_);
    Start(RuntimeParts{
        .hypervisor = &hypervisor, .agents = &agents, .images = &images_, .network = &network, .cgroups = &cgroups});
    act(context_.WithStopToken(caller.get_token()));
    const bool cancelled = caller.stop_requested();
    check();
    RemoveAllPods();
    ExpectNothingLeft();
    runtime_.reset();
    return cancelled;
  }
};

TEST_F(CancelTest, Cri05DuringRunPod) {
  CancelAtEveryPassage([] {},
                       [this](const Context& context) { runtime_->RunPod(context, Pod("pod")).status().IgnoreError(); },
                       [this] {
                         const std::size_t made = runtime_->ListPods({}).size();
                         EXPECT_EQ(runtime_->ListPods({.state = PodState::kReady}).size(), made);
                         EXPECT_EQ(static_cast<std::size_t>(machine_.alive_count()), made);
                         EXPECT_EQ(network_.namespaces(), made);
                         EXPECT_EQ(cgroups_.count(), made);
                         // The kubelet asks again.
                         const std::string id = RunPod();
                         EXPECT_EQ(runtime_->ListPods({}).size(), 1U);
                         RunContainer(id);
                       });
}

TEST_F(CancelTest, Cri05DuringCreateContainer) {
  std::string pod;
  CancelAtEveryPassage(
      [&] { pod = RunPod(); },
      [&](const Context& context) { runtime_->CreateContainer(context, pod, Config("main")).status().IgnoreError(); },
      [&] {
        const std::size_t known = runtime_->ListContainers({}).size();
        EXPECT_EQ(Guest(pod).container_ids().size(), known);
        EXPECT_EQ(machine_.vm(pod)->disks.size(), known);
        EXPECT_EQ(static_cast<std::size_t>(images_.leases()), known);
        RunContainer(pod);
        EXPECT_EQ(runtime_->ListContainers({}).size(), 1U);
      });
}

TEST_F(CancelTest, Cri05DuringStartAndRemoveContainer) {
  std::string pod;
  std::string id;
  CancelAtEveryPassage(
      [&] {
        pod = RunPod();
        id = CreateContainer(pod);
      },
      [&](const Context& context) {
        runtime_->StartContainer(context, id).IgnoreError();
        runtime_->RemoveContainer(context, id).IgnoreError();
      },
      [&] {
        EXPECT_TRUE(runtime_->RemoveContainer(context_, id).ok());
        EXPECT_TRUE(Guest(pod).container_ids().empty());
        EXPECT_TRUE(machine_.vm(pod)->disks.empty());
        EXPECT_EQ(images_.leases(), 0);
        RunContainer(pod);
      });
}

TEST_F(CancelTest, Cri05DuringStopAndRemovePod) {
  std::string pod;
  CancelAtEveryPassage(
      [&] {
        pod = RunPod();
        RunContainer(pod);
      },
      [&](const Context& context) {
        runtime_->StopPod(context, pod).IgnoreError();
        runtime_->RemovePod(context, pod).IgnoreError();
      },
      [&] {
        EXPECT_TRUE(runtime_->StopPod(context_, pod).ok());
        EXPECT_TRUE(runtime_->RemovePod(context_, pod).ok());
        EXPECT_TRUE(runtime_->ListPods({}).empty());
        EXPECT_EQ(machine_.alive_count(), 0);
      });
}

}  // namespace
}  // namespace husk::sandbox
