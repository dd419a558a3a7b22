// The death of huskd before and after every effect on the outside world: the next one converges, and no orphan stays.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "sandbox/testing/crash_gate.h"
#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;

class CrashTest : public RuntimeFixture {
 protected:
  void SetUp() override {}

  // Runs `prepare` whole and `act` until its n-th passage of the gate, for n = 1, 2, ... until act gets through. After
  // each death: restart, `check`, removal of everything, and nothing may be left.
  void DieAtEveryPassage(const std::function<void()>& prepare, const std::function<void()>& act,
                         const std::function<void()>& check) {
    constexpr int kTooMany = 200;
    int passage = 1;
    for (; passage < kTooMany; ++passage) {
      SCOPED_TRACE(testing::Message() << "death at passage " << passage);
      Start();
      prepare();
      runtime_.reset();
      if (!LiveUntil(passage, act)) break;
      if (HasFatalFailure()) return;
      Start();
      ExpectConsistent();
      check();
      RemoveAllPods();
      ExpectNothingLeft();
      if (HasFailure()) return;
      runtime_.reset();
    }
    EXPECT_GT(passage, 5);
    EXPECT_LT(passage, kTooMany);
  }

 private:
  // False if it did not come to the passage: `act` was done before.
  bool LiveUntil(int passage, const std::function<void()>& act) {
    CrashGate gate(passage, [this] { Keep(); });
    hypervisor::FakeHypervisor own_hypervisor(machine_);
    GatedHypervisor hypervisor(gate, own_hypervisor);
    GatedNetwork network(gate, network_);
    GatedCgroups cgroups(gate, cgroups_);
    GatedAgents agents(gate, agents_);
    Start(RuntimeParts{
        .hypervisor = &hypervisor, .agents = &agents, .images = &images_, .network = &network, .cgroups = &cgroups});
    act();
    const bool died = gate.dead();
    // Whatever this one still writes comes to nothing.
    runtime_.reset();
    if (died) BringBack();
    return died;
  }

  // What the dead process had on its disk: all that it wrote later, undoing what it did, is taken back.
  void Keep() {
    fs::copy(options_.root_directory, directory_ + "/kept-root", fs::copy_options::recursive);
    fs::copy(options_.state_directory, directory_ + "/kept-state", fs::copy_options::recursive);
  }
  void BringBack() {
    fs::remove_all(options_.root_directory);
    fs::remove_all(options_.state_directory);
    fs::rename(directory_ + "/kept-root", options_.root_directory);
    fs::rename(directory_ + "/kept-state", options_.state_directory);
  }

  void ExpectConsistent() {
    const auto ready = runtime_->ListPods({.state = PodState::kReady}).size();
    const auto all = runtime_->ListPods({}).size();
    EXPECT_EQ(static_cast<std::size_t>(machine_.alive_count()), ready);
    EXPECT_EQ(network_.namespaces(), all);
    EXPECT_EQ(cgroups_.count(), all);
    EXPECT_EQ(Entries(options_.root_directory + "/pods"), all);
    EXPECT_EQ(Entries(options_.state_directory + "/pods"), all);
  }
};

TEST_F(CrashTest, DuringRunPod) {
  DieAtEveryPassage([] {}, [this] { runtime_->RunPod(context_, Pod("pod")).status().IgnoreError(); },
                    [this] {
                      // The kubelet got no answer and asks again.
                      const std::string id = RunPod();
                      EXPECT_EQ(StateOf(id), PodState::kReady);
                      EXPECT_EQ(runtime_->ListPods({}).size(), 1U);
                      RunContainer(id);
                    });
}

TEST_F(CrashTest, DuringCreateContainer) {
  std::string pod;
  DieAtEveryPassage([&] { pod = RunPod(); },
                    [&] {
                      ContainerConfig config = Config("main");
                      config.resources.hugepage_limits = {{"2MB", std::uint64_t{4} << 20}};
                      runtime_->CreateContainer(context_, pod, config).status().IgnoreError();
                    },
                    [&] {
                      EXPECT_EQ(StateOf(pod), PodState::kReady);
                      const std::size_t known = runtime_->ListContainers({}).size();
                      EXPECT_EQ(Guest(pod).container_ids().size(), known);
                      EXPECT_EQ(machine_.vm(pod)->disks.size(), known);
                      EXPECT_EQ(static_cast<std::size_t>(images_.leases()), known);
                      EXPECT_TRUE(Eventually([&] { return (machine_.vm(pod)->plugged_bytes > 0) == (known > 0); }));
                      RunContainer(pod);
                      EXPECT_EQ(runtime_->ListContainers({}).size(), 1U);
                      EXPECT_EQ(machine_.vm(pod)->disks.size(), 1U);
                    });
}

TEST_F(CrashTest, DuringRemoveContainer) {
  std::string pod;
  std::string id;
  DieAtEveryPassage(
      [&] {
        pod = RunPod();
        ContainerConfig config = Config("main");
        config.resources.hugepage_limits = {{"2MB", std::uint64_t{4} << 20}};
        id = runtime_->CreateContainer(context_, pod, config).value_or("");
        EXPECT_TRUE(runtime_->StartContainer(context_, id).ok());
        EXPECT_GT(machine_.vm(pod)->plugged_bytes, 0U);
      },
      [&] { runtime_->RemoveContainer(context_, id).IgnoreError(); },
      [&] {
        EXPECT_EQ(StateOf(pod), PodState::kReady);
        EXPECT_TRUE(runtime_->RemoveContainer(context_, id).ok());
        EXPECT_TRUE(Guest(pod).container_ids().empty());
        EXPECT_TRUE(machine_.vm(pod)->disks.empty());
        EXPECT_TRUE(Eventually([&] { return machine_.vm(pod)->plugged_bytes == 0; }));
        EXPECT_EQ(images_.leases(), 0);
      });
}

// After a death at any step of it the limits that are shown are in force in the guest, and the VM fits them.
TEST_F(CrashTest, DuringAResize) {
  const auto limits = [](std::int64_t mebibytes, std::int64_t quota) {
    LinuxResources resources;
    resources.memory_limit_bytes = mebibytes << 20;
    resources.cpu_quota = quota;
    resources.cpu_period = 100'000;
    return resources;
  };
  struct Size {
    std::int64_t mebibytes;
    std::int64_t quota;
    std::uint64_t plugged;
    std::uint32_t vcpus;
  };
  constexpr Size kSmall{.mebibytes = 64, .quota = 50'000, .plugged = 0, .vcpus = 1};
  constexpr Size kLarge{.mebibytes = 512, .quota = 200'000, .plugged = std::uint64_t{376} << 20, .vcpus = 2};
  for (const bool grows : {true, false}) {
    SCOPED_TRACE(grows ? "grows" : "shrinks");
    const Size& before = grows ? kSmall : kLarge;
    const Size& after = grows ? kLarge : kSmall;
    std::string pod;
    std::string id;
    DieAtEveryPassage(
        [&] {
          pod = RunPod();
          ContainerConfig config = Config("main");
          config.resources = limits(before.mebibytes, before.quota);
          id = runtime_->CreateContainer(context_, pod, config).value_or("");
          EXPECT_TRUE(runtime_->StartContainer(context_, id).ok());
        },
        [&] { runtime_->UpdateContainerResources(context_, id, limits(after.mebibytes, after.quota)).IgnoreError(); },
        [&] {
          const auto shown = [&] { return StatusOf(id).config.resources.memory_limit_bytes >> 20; };
          const auto in_force = [&](std::int64_t mebibytes) {
            const std::string sent = Guest(pod).updated_resources(id);
            return sent.empty() ? mebibytes == before.mebibytes
                                : sent.find(std::to_string(mebibytes << 20)) != std::string::npos;
          };
          // Those that are recorded are shown when the guest has confirmed them, not before.
          EXPECT_TRUE(shown() == before.mebibytes || in_force(after.mebibytes)) << shown();
          EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
          EXPECT_TRUE(Eventually([&] {
            const Size& now = shown() == before.mebibytes ? before : after;
            return shown() == now.mebibytes && in_force(now.mebibytes) &&
                   machine_.vm(pod)->plugged_bytes == now.plugged && machine_.vm(pod)->vcpus == now.vcpus;
          }));
          // The kubelet, which got no answer, asks again.
          EXPECT_TRUE(runtime_->UpdateContainerResources(context_, id, limits(after.mebibytes, after.quota)).ok());
          EXPECT_EQ(machine_.vm(pod)->plugged_bytes, after.plugged);
          EXPECT_EQ(machine_.vm(pod)->vcpus, after.vcpus);
          EXPECT_EQ(Guest(pod).resized() ? Guest(pod).resized()->cpus() : 1U, after.vcpus);
        });
  }
}

TEST_F(CrashTest, DuringRemovePod) {
  std::string pod;
  DieAtEveryPassage(
      [&] {
        pod = RunPod();
        RunContainer(pod);
      },
      [&] { runtime_->RemovePod(context_, pod).IgnoreError(); },
      [&] { EXPECT_TRUE(runtime_->StopPod(context_, pod).ok()); });
}

}  // namespace
}  // namespace husk::sandbox
