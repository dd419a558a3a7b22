#include "sandbox/volumes/pod_volumes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "agent/client/fake_agent.h"
#include "hypervisor/fake/fake_hypervisor.h"

namespace husk::sandbox {
namespace {

using agent::FakeVolume;
using ::testing::HasSubstr;

class PodVolumesTest : public ::testing::Test {
 protected:
  PodVolumesTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "husk-volumes-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    pod_ = directory_ + "/pods/uid";
    configuration_ = pod_ + "/volumes/kubernetes.io~configmap/configuration";
    std::filesystem::create_directories(configuration_);
    Start();
  }
  ~PodVolumesTest() override {
    volumes_.reset();
    std::filesystem::remove_all(directory_);
  }
  // As a new process.
  void Start() {
    if (!vm_) {
      vm_ = hypervisor_
                .Start(context_, {.id = "pod",
                                  .vcpus = 1,
                                  .maximum_vcpus = 1,
                                  .memory_bytes = 1 << 21,
                                  .maximum_memory_bytes = 1 << 21,
                                  .user = 1,
                                  .state_directory = "/state"})
                .value();
    }
    SharedDirectories shared(vm_, [] { return std::vector<std::string>(); });
    volumes_ = std::make_unique<PodVolumes>("pod", "uid", connector_.Connect("socket"), std::move(shared));
  }
  [[nodiscard]] std::map<std::string, hypervisor::FakeShare> Shares() const { return machine_.vm("pod")->shares; }
  agent::FakeGuest& guest() { return connector_.guest("socket"); }

  // As the kubelet writes its volumes.
  void Swap(const std::string& version, const std::map<std::string, std::string>& files) {
    const auto old = std::filesystem::exists(configuration_ + "/..data")
                         ? std::filesystem::read_symlink(configuration_ + "/..data").string()
                         : "";
    std::filesystem::create_directory(configuration_ + "/" + version);
    for (const auto& [name, text] : files) std::ofstream(configuration_ + "/" + version + "/" + name) << text;
    std::filesystem::create_symlink(version, configuration_ + "/..data_tmp");
    std::filesystem::rename(configuration_ + "/..data_tmp", configuration_ + "/..data");
    for (const auto& [name, text] : files) {
      std::error_code exists;
      std::filesystem::create_symlink("..data/" + name, configuration_ + "/" + name, exists);
    }
    if (!old.empty()) std::filesystem::remove_all(configuration_ + "/" + old);
  }
  [[nodiscard]] ContainerMount Configuration() const {
    return {.container_path = "/etc/app", .host_path = configuration_, .read_only = true};
  }
  std::string Prepare(const ContainerMount& mount) {
    const auto prepared = volumes_->Prepare(context_, {mount});
    EXPECT_TRUE(prepared.ok()) << prepared.status();
    return prepared.ok() ? prepared->front().volume_id() : "";
  }
  bool AwaitFollowed(const std::string& id, int before) const {
    const auto until = Context::Clock::now() + std::chrono::seconds(30);
    while (Shares().at(id).followed <= before) {
      if (Context::Clock::now() >= until) return false;
      SleepFor(context_, std::chrono::milliseconds(5)).IgnoreError();
    }
    return true;
  }
  bool Becomes(const std::string& id, const FakeVolume& expected) {
    const auto until = Context::Clock::now() + std::chrono::seconds(30);
    while (guest().volume(id) != expected) {
      if (Context::Clock::now() >= until) return false;
      SleepFor(Context::Background(), std::chrono::milliseconds(5)).IgnoreError();
    }
    return true;
  }
  static FakeVolume Swapped(const std::string& version, const std::string& text) {
    return {{version, "/"}, {version + "/key", text}, {"..data", "-> " + version}, {"key", "-> ..data/key"}};
  }

  const Context context_ = Context::Background().WithTimeout(std::chrono::minutes(2));
  std::string directory_;
  std::string pod_;
  std::string configuration_;
  agent::FakeAgentConnector connector_;
  hypervisor::FakeMachine machine_;
  hypervisor::FakeHypervisor hypervisor_{machine_};
  std::shared_ptr<hypervisor::Vm> vm_;
  std::unique_ptr<PodVolumes> volumes_;
};

TEST_F(PodVolumesTest, AVolumeOfTheKubeletsIsCopiedAndKept) {
  Swap("..1", {{"key", "one"}});
  const std::string id = Prepare(Configuration());
  EXPECT_EQ(guest().volume(id), Swapped("..1", "one"));
  Swap("..2", {{"key", "two"}});
  EXPECT_TRUE(Becomes(id, Swapped("..2", "two")));
  // Nothing is sent when nothing has changed.
  const int changes = guest().call_count("ChangeVolume");
  EXPECT_EQ(Prepare(Configuration()), id);
  EXPECT_EQ(guest().call_count("ChangeVolume"), changes);
}

TEST_F(PodVolumesTest, LargeFilesGoInPieces) {
  const std::string large(3'000'000, 'x');
  Swap("..1", {{"key", large}});
  EXPECT_EQ(guest().volume(Prepare(Configuration())), Swapped("..1", large));
  EXPECT_GT(guest().call_count("ChangeVolume"), 4);
}

TEST_F(PodVolumesTest, ACopyThatFailsIsRepeated) {
  Swap("..1", {{"key", "one"}});
  const std::string id = Prepare(Configuration());
  guest().FailNext("ChangeVolume", absl::UnavailableError("for a test"), 2);
  Swap("..2", {{"key", "two"}});
  EXPECT_TRUE(Becomes(id, Swapped("..2", "two")));
}

TEST_F(PodVolumesTest, TheNextProcessGoesOn) {
  Swap("..1", {{"key", "one"}});
  const std::string id = Prepare(Configuration());
  volumes_.reset();
  Swap("..2", {{"key", "two"}});
  Start();
  volumes_->Adopt({Configuration(), {.container_path = "/gone", .host_path = pod_ + "/gone"}});
  EXPECT_TRUE(Becomes(id, Swapped("..2", "two")));
  Swap("..3", {{"key", "three"}});
  EXPECT_TRUE(Becomes(id, Swapped("..3", "three")));
}

TEST_F(PodVolumesTest, AFileIsKept) {
  const std::string path = pod_ + "/etc-hosts";
  std::ofstream(path) << "first";
  const std::string id = Prepare({.container_path = "/etc/hosts", .host_path = path});
  EXPECT_EQ(guest().volume(id), (FakeVolume{{"", "first"}}));
  std::ofstream(path) << "second";
  EXPECT_TRUE(Becomes(id, {{"", "second"}}));
}

TEST_F(PodVolumesTest, TheTerminationMessageComesBack) {
  const std::string path = pod_ + "/containers/main/1";
  std::filesystem::create_directories(pod_ + "/containers/main");
  std::ofstream(path).flush();
  const std::vector<ContainerMount> mounts = {{.container_path = "/dev/termination-log", .host_path = path}};
  const auto read = [&] {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  };
  const std::string id = Prepare(mounts[0]);
  guest().WriteVolume(id, "", "it was the weather");
  // The next process does not know what was written.
  Start();
  volumes_->Adopt(mounts);
  EXPECT_TRUE(volumes_->CopyBack(context_, mounts).ok());
  EXPECT_EQ(read(), "it was the weather");
  guest().WriteVolume(id, "", std::string(10 << 20, 'x'));
  EXPECT_TRUE(volumes_->CopyBack(context_, mounts).ok());
  EXPECT_EQ(read().size(), std::size_t{64} << 10);
  EXPECT_TRUE(volumes_->Release(context_, mounts).ok());
  EXPECT_TRUE(guest().volume_ids().empty());
  // Not through a link, whoever put it there.
  std::ofstream(directory_ + "/victim") << "safe";
  std::filesystem::remove(path);
  std::filesystem::create_symlink(directory_ + "/victim", path);
  guest().WriteVolume(id, "", "harm");
  EXPECT_FALSE(volumes_->CopyBack(context_, mounts).ok());
  std::string victim;
  std::ifstream(directory_ + "/victim") >> victim;
  EXPECT_EQ(victim, "safe");
}

TEST_F(PodVolumesTest, AnEmptyDirectoryIsTheGuestsOwn) {
  const std::string path = pod_ + "/volumes/kubernetes.io~empty-dir/cache";
  std::filesystem::create_directories(path);
  std::ofstream(path + "/on-the-host") << "x";
  EXPECT_EQ(guest().volume(Prepare({.container_path = "/cache", .host_path = path})), FakeVolume());
}

TEST_F(PodVolumesTest, AnyOtherDirectoryIsSharedOnce) {
  const std::string path = directory_ + "/claim";
  std::filesystem::create_directory(path);
  const std::string id = Prepare({.container_path = "/data", .host_path = path});
  EXPECT_EQ(Prepare({.container_path = "/also", .host_path = path}), id);
  ASSERT_EQ(Shares().size(), 1U);
  EXPECT_EQ(Shares().at(id).path, path);
  EXPECT_FALSE(Shares().at(id).read_only);
  // The host keeps what is read-only, so that is another share.
  const std::string read_only = Prepare({.container_path = "/ro", .host_path = path, .read_only = true});
  EXPECT_TRUE(Shares().at(read_only).read_only);
  // The next process finds them, and does not mind that the path is another directory by now.
  std::filesystem::rename(path, directory_ + "/moved");
  std::filesystem::create_directory(path);
  Start();
  volumes_->Adopt({{.container_path = "/data", .host_path = path}});
  EXPECT_EQ(Prepare({.container_path = "/data", .host_path = path}), id);
  EXPECT_EQ(Shares().size(), 2U);
}

TEST_F(PodVolumesTest, AShareThatTheGuestCannotMountIsTakenAway) {
  const std::string path = directory_ + "/claim";
  std::filesystem::create_directory(path);
  const ContainerMount mount{.container_path = "/data", .host_path = path};
  // The device comes after a while.
  guest().FailNext("CreateVolume", absl::NotFoundError("not yet"), 3);
  const std::string id = Prepare(mount);
  EXPECT_EQ(guest().call_count("CreateVolume"), 4);
  Start();
  guest().FailNext("CreateVolume", absl::InternalError("broken"), 1);
  EXPECT_FALSE(volumes_->Prepare(context_, {mount}).ok());
  EXPECT_TRUE(Shares().contains(id)) << "a container of an earlier process may use it";
  const std::string another = directory_ + "/another";
  std::filesystem::create_directory(another);
  guest().FailNext("CreateVolume", absl::InternalError("broken"), 1);
  const auto failed = volumes_->Prepare(context_, {{.container_path = "/another", .host_path = another}});
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("mount /another: mount " + another));
  EXPECT_EQ(Shares().size(), 1U);
  machine_.FailNext(hypervisor::FakeOperation::kAttachShare, absl::ResourceExhaustedError("all ports are in use"));
  const auto full = volumes_->Prepare(context_, {{.container_path = "/another", .host_path = another}});
  EXPECT_TRUE(absl::IsResourceExhausted(full.status()));
}

TEST_F(PodVolumesTest, ALargeVolumeIsSharedAndStaysSo) {
  const std::string half(std::size_t{9} << 20, 'x');
  Swap("..1", {{"a", half}, {"b", half}});
  const std::string id = Prepare(Configuration());
  ASSERT_EQ(Shares().size(), 1U);
  EXPECT_EQ(Shares().at(id).path, configuration_);
  EXPECT_TRUE(Shares().at(id).read_only);
  EXPECT_TRUE(Shares().at(id).immediate);
  EXPECT_EQ(guest().call_count("ChangeVolume"), 0);
  // Whatever becomes of it, and whoever asks: a volume of one pod is one thing.
  Swap("..2", {{"a", "small"}});
  EXPECT_EQ(Prepare(Configuration()), id);
  volumes_.reset();
  Start();
  volumes_->Adopt({Configuration()});
  Swap("..3", {{"a", "smaller"}});
  EXPECT_EQ(Prepare(Configuration()), id);
  volumes_->Stop();
  EXPECT_EQ(Shares().size(), 1U);
  EXPECT_EQ(guest().call_count("ChangeVolume"), 0);
}

TEST_F(PodVolumesTest, ASmallVolumeThatGrowsStaysACopy) {
  Swap("..1", {{"key", "small"}});
  const std::string id = Prepare(Configuration());
  const std::string large(std::size_t{17} << 20, 'x');
  Swap("..2", {{"key", large}});
  EXPECT_TRUE(Becomes(id, Swapped("..2", large)));
  volumes_.reset();
  Start();
  volumes_->Adopt({Configuration()});
  EXPECT_EQ(Prepare(Configuration()), id);
  EXPECT_TRUE(Shares().empty());
}

TEST_F(PodVolumesTest, WithoutAPortALargeVolumeIsCopied) {
  const std::string large(std::size_t{17} << 20, 'x');
  Swap("..1", {{"key", large}});
  machine_.FailNext(hypervisor::FakeOperation::kAttachShare, absl::ResourceExhaustedError("all ports are in use"));
  const std::string id = Prepare(Configuration());
  EXPECT_EQ(guest().volume(id), Swapped("..1", large));
  EXPECT_TRUE(Shares().empty());
  Swap("..2", {{"key", "small"}});
  EXPECT_TRUE(Becomes(id, Swapped("..2", "small")));
  EXPECT_EQ(Prepare(Configuration()), id);
  // Other failures are no reason to copy.
  std::filesystem::rename(configuration_, configuration_ + "-other");
  const ContainerMount other{.container_path = "/other", .host_path = configuration_ + "-other", .read_only = true};
  std::ofstream(other.host_path + "/large") << large;
  machine_.FailNext(hypervisor::FakeOperation::kAttachShare, absl::InternalError("broken"));
  EXPECT_EQ(volumes_->Prepare(context_, {other}).status().code(), absl::StatusCode::kInternal);
}

TEST_F(PodVolumesTest, MountsOfTheHostAreFollowed) {
  ASSERT_EQ(unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  volumes_.reset();
  Start();
  const std::string data = directory_ + "/data";
  std::filesystem::create_directories(data + "/sub");
  const ContainerMount following{.container_path = "/data", .host_path = data, .follow_mounts = true};
  const std::string id = Prepare(following);
  EXPECT_NE(Prepare({.container_path = "/data", .host_path = data}), id) << "that one has nothing of it";
  ASSERT_EQ(Shares().size(), 2U);
  EXPECT_TRUE(Shares().at(id).alone);
  EXPECT_TRUE(Shares().at(id).immediate);
  EXPECT_GE(Shares().at(id).followed, 1) << "what is mounted already is there before the container";
  EXPECT_EQ(guest().call_count("LookAgain"), 0);
  for (const bool again : {false, true}) {
    if (again) {
      // The next process goes on.
      volumes_.reset();
      Start();
      const int before = Shares().at(id).followed;
      volumes_->Adopt({following});
      ASSERT_TRUE(AwaitFollowed(id, before));
    }
    int before = Shares().at(id).followed;
    ASSERT_EQ(mount("test", (data + "/sub").c_str(), "tmpfs", 0, nullptr), 0);
    ASSERT_TRUE(AwaitFollowed(id, before));
    // The guest is told what is gone, until it has heard it.
    const int looked = guest().call_count("LookAgain");
    machine_.SetGone("pod", id, {"sub"});
    guest().FailNext("LookAgain", absl::UnavailableError("not now"));
    before = Shares().at(id).followed;
    ASSERT_EQ(umount2((data + "/sub").c_str(), 0), 0);
    ASSERT_TRUE(AwaitFollowed(id, before));
    EXPECT_TRUE(guest().WaitForCalls("LookAgain", looked + 2));
  }
}

TEST_F(PodVolumesTest, ErrorsNameTheMount) {
  const auto prepared = volumes_->Prepare(context_, {{.container_path = "/data", .host_path = "/none"}});
  EXPECT_TRUE(absl::IsInvalidArgument(prepared.status()));
  EXPECT_THAT(std::string(prepared.status().message()), HasSubstr("mount /data: host_path /none: does not exist"));
}

}  // namespace
}  // namespace husk::sandbox
