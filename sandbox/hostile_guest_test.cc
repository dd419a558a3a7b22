// Pods whose guests attack, over the real channel: what they say of containers changes only their own, and no more of
// it is kept than there is room for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "agent/client/test_guest.h"
#include "sandbox/log/log_record.h"
#include "sandbox/testing/runtime_fixture.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;
namespace v1 = agent::v1;
using agent::TestGuest;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr char kForged[] = "plain\n2026-01-01T00:00:00.000000000Z stderr F forged\n\x1b[31mred\r\n\xff\n";

// An agent that agrees to everything and does nothing of it; what it says of a container is the test's.
struct Script {
  std::function<void(const v1::PollRequest& asked, v1::PollResponse& said)> on_poll;
  std::string volume;         // what each ReadVolume is answered with, whatever was asked
  std::string refusal;        // of UpdateResources; empty: granted
  std::string start_refusal;  // of StartContainer
  bool floods = false;        // answers nobody, and writes for ever
};

void Flood(TestGuest::Peer& peer) {
  const std::string bytes(1 << 16, '\xff');
  while (!peer.closed()) peer.Send(bytes);
}

TestGuest::Handler HandlerOf(const Script& script) {
  return [script](TestGuest::Peer& peer, std::uint32_t stream, const v1::RpcRequest& request) {
    const std::string& method = request.method();
    if (method == "Hello") return peer.Answer(stream, TestGuest::HelloPayload());
    if (method == "ConfigureSandbox") return peer.Answer(stream, "");
    if (script.floods) return Flood(peer);
    if (method == "Poll") {
      v1::PollRequest asked;
      v1::PollResponse said;
      EXPECT_TRUE(asked.ParseFromString(request.payload()));
      if (script.on_poll) script.on_poll(asked, said);
      return peer.Answer(stream, said.SerializeAsString());
    }
    if (method == "ReadVolume") {
      v1::ReadVolumeResponse said;
      said.set_data(script.volume);
      return peer.Answer(stream, said.SerializeAsString());
    }
    if (method == "UpdateResources" && !script.refusal.empty()) return peer.Fail(stream, 3, script.refusal);
    if (method == "StartContainer" && !script.start_refusal.empty()) return peer.Fail(stream, 9, script.start_refusal);
    peer.Answer(stream, "");
  };
}

// Puts a hostile guest behind each socket to which huskd connects, or a fake one for pods that shall be honest.
class HostileAgents final : public agent::AgentConnector {
 public:
  explicit HostileAgents(agent::AgentConnector& honest) : honest_(honest) {}
  std::unique_ptr<agent::AgentClient> Connect(const std::string& socket_path) override {
    if (!hostile) return honest_.Connect(socket_path);
    auto& guest = guests_[socket_path];
    if (!guest) {
      guest = std::make_unique<TestGuest>(socket_path);
      guest->handler = HandlerOf(script);
      guest->Start();
    }
    return real_->Connect(socket_path);
  }
  void EndAll() { guests_.clear(); }

  std::atomic<bool> hostile = true;  // of pods that are made from now on
  Script script;                     // likewise

 private:
  agent::AgentConnector& honest_;
  const std::unique_ptr<agent::AgentConnector> real_ = agent::NewTtrpcConnector();
  std::map<std::string, std::unique_ptr<TestGuest>> guests_;
};

class HostileGuestTest : public RuntimeFixture {
 protected:
  void SetUp() override {
    RuntimeParts parts = FakeParts();
    parts.hypervisor = &own_hypervisor_;
    parts.agents = &hostile_;
    Start(parts);
  }
  ~HostileGuestTest() override {
    runtime_.reset();
    hostile_.EndAll();
  }

  // Of the container's first process.
  static void Exit(v1::PollResponse& said, const std::string& id, int code) {
    v1::ProcessStatus& exit = *said.add_exits();
    exit.set_container_id(id);
    exit.set_state(v1::EXITED);
    exit.set_exit_code(code);
  }
  static void End(v1::PollResponse& said, const v1::StreamCursor& cursor, const std::string& data) {
    v1::StreamChunk& chunk = *said.add_chunks();
    chunk.set_container_id(cursor.container_id());
    chunk.set_kind(cursor.kind());
    chunk.set_offset(cursor.offset());
    chunk.set_data(data);
    chunk.set_end(true);
  }
  // Its streams end with `data` each, and it exits with 0.
  static void EndAll(const v1::PollRequest& asked, v1::PollResponse& said, const std::string& data) {
    for (const auto& cursor : asked.cursors()) End(said, cursor, data);
    for (const auto& watched : asked.watch()) Exit(said, watched.container_id(), 0);
  }
  static std::string Read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  hypervisor::FakeHypervisor own_hypervisor_{machine_};
  HostileAgents hostile_{agents_};
};

TEST_F(HostileGuestTest, AGT01_AFloodDelaysNoOtherPodsCalls) {
  hostile_.script.floods = true;
  const std::string flooding = RunPod("flooding");
  std::atomic<bool> over = false;
  std::thread caller([&] {
    const auto created = runtime_->CreateContainer(context_, flooding, Config("main"));
    EXPECT_FALSE(created.ok());
    over = true;
  });
  hostile_.hostile = false;
  const std::string honest = RunPod("honest");
  for (int i = 0; i < 20; ++i) {
    const std::string id = RunContainer(honest, "c" + std::to_string(i));
    EXPECT_TRUE(runtime_->ExecSync(context_, id, {"/bin/true"}, seconds(30)).ok());
    EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
  }
  EXPECT_FALSE(over) << "the hostile pod's call waits while those of the other go through";
  EXPECT_TRUE(runtime_->StopPod(context_, flooding).ok());
  caller.join();
}

TEST_F(HostileGuestTest, AGT02_ExitsOfOthersAndOfNobodyChangeNothing) {
  hostile_.hostile = false;
  // Guests go on after the test's body: they own what they use.
  const std::string honest_container = RunContainer(RunPod("honest"), "app");
  hostile_.hostile = true;
  hostile_.script.on_poll = [honest_container](const v1::PollRequest& asked, v1::PollResponse& said) {
    Exit(said, honest_container, 1);
    Exit(said, "", 2);
    Exit(said, "../../etc", 3);
    said.add_unknown()->set_container_id(honest_container);
    // Twice, with two codes.
    for (const auto& watched : asked.watch()) {
      Exit(said, watched.container_id(), 7);
      Exit(said, watched.container_id(), 9);
    }
    for (const auto& cursor : asked.cursors()) End(said, cursor, "");
  };
  const std::string id = RunContainer(RunPod("liar"));
  ASSERT_TRUE(AwaitExit(id));
  EXPECT_EQ(StatusOf(id).exit_code, 7);
  EXPECT_EQ(StatusOf(honest_container).state, ContainerState::kRunning);
}

TEST_F(HostileGuestTest, AGT02_AnswersThatSayNothingAtOnceMakeNothingSpin) {
  const auto polls = std::make_shared<std::atomic<int>>(0);
  hostile_.script.on_poll = [polls](const v1::PollRequest&, v1::PollResponse&) { ++*polls; };
  RunContainer(RunPod("liar"));
  const auto from = Context::Clock::now();
  const int before = *polls;
  ASSERT_TRUE(Eventually([&] { return *polls >= before + 5; }));
  std::this_thread::sleep_for(milliseconds(500));
  const auto passed = std::chrono::duration_cast<milliseconds>(Context::Clock::now() - from);
  EXPECT_LE(*polls - before, passed.count() / 100 + 3);
}

TEST_F(HostileGuestTest, AGT02_AnExitThatNeverComesHoldsNoPod) {
  const std::string pod = RunPod("liar");
  const std::string id = RunContainer(pod);
  const Status stopped = runtime_->StopContainer(context_.WithTimeout(seconds(2)), id, seconds(0));
  EXPECT_TRUE(absl::IsDeadlineExceeded(stopped)) << stopped;
  EXPECT_EQ(StatusOf(id).state, ContainerState::kRunning);
  EXPECT_TRUE(runtime_->StopPod(context_, pod).ok());
  EXPECT_EQ(StatusOf(id).state, ContainerState::kExited);
}

TEST_F(HostileGuestTest, AGT03_ATerminationMessageWithoutEndIsCut) {
  const std::string directory = directory_ + "/kubelet/pods/uid-liar/containers/main";
  fs::create_directories(directory);
  const std::string path = directory + "/1234";
  std::ofstream(path).flush();
  hostile_.script.volume = std::string(std::size_t{3} << 20, 'm');
  hostile_.script.on_poll = [](const v1::PollRequest& asked, v1::PollResponse& said) { EndAll(asked, said, ""); };
  const std::string pod = RunPod("liar");
  ContainerConfig config = Config("main");
  config.mounts = {{.container_path = "/dev/termination-log", .host_path = path, .read_only = false}};
  const auto id = runtime_->CreateContainer(context_, pod, config);
  ASSERT_TRUE(id.ok()) << id.status();
  ASSERT_TRUE(runtime_->StartContainer(context_, *id).ok());
  ASSERT_TRUE(AwaitExit(*id));
  // The kubelet reads 4096 bytes of it.
  EXPECT_EQ(Read(path), std::string(std::size_t{64} << 10, 'm'));
  EXPECT_EQ(Entries(directory), 1U);
}

TEST_F(HostileGuestTest, AGT04_EachLineOfTheLogIsARecordOfItsOwn) {
  hostile_.script.on_poll = [](const v1::PollRequest& asked, v1::PollResponse& said) { EndAll(asked, said, kForged); };
  const std::string id = RunContainer(RunPod("liar"));
  ASSERT_TRUE(AwaitExit(id));
  const std::string log = Log("liar", "main");
  ASSERT_TRUE(log.ends_with('\n'));
  std::uint64_t bytes[2] = {0, 0};  // NOLINT: of the two streams
  for (std::string_view rest = log; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(line.size() + 1);
    const auto record = ParseRecord(line);
    ASSERT_TRUE(record.has_value()) << line;
    bytes[record->stream == LogStream::kStdout ? 0 : 1] += record->stream_bytes;
  }
  EXPECT_EQ(bytes[0], std::string_view(kForged).size());
  EXPECT_EQ(bytes[1], std::string_view(kForged).size());
}

TEST_F(HostileGuestTest, AGT04_WordsOfTheGuestAreMadePrintableAndCut) {
  hostile_.script.on_poll = [](const v1::PollRequest& asked, v1::PollResponse& said) {
    EndAll(asked, said, "");
    for (auto& exit : *said.mutable_exits()) {
      exit.set_start_error("no\n\x1b[31m\xc3\xbc\x7f" + std::string(std::size_t{1} << 20, 'e'));
    }
  };
  const std::string id = RunContainer(RunPod("liar"));
  ASSERT_TRUE(AwaitExit(id));
  const std::string message = StatusOf(id).message;
  EXPECT_THAT(message, HasSubstr("no \\x1b[31m\\xc3\\xbc\\x7feee"));
  EXPECT_LT(message.size(), 5000U);
}

TEST_F(HostileGuestTest, AGT06_ARefusedChangeIsReportedAndNotShown) {
  hostile_.script.refusal = "I want\n\x1b[1mmore\xc3\xbc";
  const std::string id = RunContainer(RunPod("liar"));
  LinuxResources change;
  change.memory_limit_bytes = std::int64_t{64} << 20;
  const Status refused = runtime_->UpdateContainerResources(context_, id, change);
  EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("I want  [1mmore"));
  EXPECT_EQ(StatusOf(id).config.resources.memory_limit_bytes, 0);
}

}  // namespace
}  // namespace husk::sandbox
