// The agent's API over a socketpair, with real processes behind a stand-in for crun.
#include "agent/guest/service.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "agent/guest/files.h"
#include "agent/proto/agent.pb.h"
#include "agent/proto/channel.h"

namespace husk::agent {
namespace {

class NoRoots : public ContainerRoots {
 public:
  void Prepare(const std::string&, std::uint32_t, const std::set<std::uint32_t>&,
               std::function<void(StatusOr<std::string>)> done) override {
    done(std::string("/"));
  }
  [[nodiscard]] std::string ImagePath(std::uint32_t) const override { return "/usr"; }
  void Release(const std::string&, std::function<void(Status)> done) override { done(absl::OkStatus()); }
  [[nodiscard]] std::string WritableLayer(const std::string&) const override { return layer; }

  std::string layer;
};

class NoGuest : public Guest {
 public:
  void ConfigureSandbox(const v1::SandboxConfig&, std::function<void(Status)> done) override { done(absl::OkStatus()); }
  void PowerOff() override {}
};

// A blocking client of one test, which speaks "The channel" of agent.proto.
class TestClient {
 public:
  explicit TestClient(int fd) : fd_(fd) {}

  void Connect(const std::string& nonce) {
    nonce_ = nonce;
    position_ = 0;
    stream_ = 1;
    received_.clear();
    SendRaw(std::string(kChannelMarker) + nonce);
    const std::string greeting = std::string(kChannelMarker) + nonce;
    while (received_.find(greeting) == std::string::npos) Receive();
    received_.erase(0, received_.find(greeting) + greeting.size());
  }

  void SendRaw(const std::string& bytes) {
    ASSERT_EQ(send(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }

  // The masked bytes of a request.
  template <typename Request>
  std::string Bytes(const std::string& method, const Request& request) {
    v1::RpcRequest envelope;
    envelope.set_service("husk.agent.v1.Agent");
    envelope.set_method(method);
    envelope.set_payload(request.SerializeAsString());
    std::string frame = ttrpc::Encode({.stream_id = stream_,
                                       .type = ttrpc::MessageType::kRequest,
                                       .flags = 0,
                                       .payload = envelope.SerializeAsString()});
    stream_ += 2;
    MaskChannelBytes(nonce_, position_, frame.data(), frame.size());
    position_ += frame.size();
    return frame;
  }

  template <typename Response, typename Request>
  StatusOr<Response> Call(const std::string& method, const Request& request) {
    const std::uint32_t stream = stream_;
    SendRaw(Bytes(method, request));
    for (;;) {
      ttrpc::Decoder decoder;
      decoder.Append(received_);
      const auto frame = decoder.Next();
      if (!frame.ok()) return frame.status();
      if (!frame->has_value()) {
        Receive();
        continue;
      }
      received_.erase(0, ttrpc::kHeaderSize + (*frame)->payload.size());
      if ((*frame)->stream_id != stream) continue;
      v1::RpcResponse envelope;
      Response response;
      if (!envelope.ParseFromString((*frame)->payload)) return absl::DataLossError("no RpcResponse");
      if (envelope.status().code() != 0) {
        return Status(static_cast<absl::StatusCode>(envelope.status().code()), envelope.status().message());
      }
      if (!response.ParseFromString(envelope.payload())) return absl::DataLossError("no response");
      return response;
    }
  }

 private:
  void Receive() {
    char buffer[65536];  // NOLINT: recv() fills it
    const ssize_t count = recv(fd_, buffer, sizeof(buffer), 0);
    ASSERT_GT(count, 0);
    received_.append(buffer, static_cast<std::size_t>(count));
  }

  int fd_;
  std::string nonce_;
  std::uint64_t position_ = 0;
  std::uint32_t stream_ = 1;
  std::string received_;
};

class ServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // Blocked before the loop's thread starts, so that only its signalfd sees them; orphans shall come to us.
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigaddset(&mask, SIGPIPE);
    ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &mask, nullptr), 0);
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    std::string pattern = std::filesystem::temp_directory_path() / "husk-agent-XXXXXX";
    base_ = mkdtemp(pattern.data());
    for (const char* name : {"/bundles", "/pod", "/crun"}) std::filesystem::create_directory(base_ + name);
    std::filesystem::create_directories(base_ + "/pools/hugepages-2048kB");
    std::ofstream(base_ + "/pools/hugepages-2048kB/nr_hugepages") << "0\n";
    for (const char* cpu : {"/cpus/cpu0", "/cpus/cpu1"}) std::filesystem::create_directories(base_ + cpu);
    std::ofstream(base_ + "/cpus/cpu1/online") << "0\n";
    int pair[2];  // NOLINT: socketpair() fills it
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    host_ = UniqueFd(pair[0]);
    port_ = UniqueFd(pair[1]);
    ASSERT_EQ(fcntl(port_.get(), F_SETFL, O_NONBLOCK), 0);
    timeval limit{.tv_sec = 120, .tv_usec = 0};
    setsockopt(host_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    auto loop = EventLoop::Create();
    ASSERT_TRUE(loop.ok());
    loop_ = *std::move(loop);
    thread_ = std::thread([this] { Serve(); });
    client_ = std::make_unique<TestClient>(host_.get());
    client_->Connect("0123456789abcdef");
  }

  void TearDown() override {
    if (client_ != nullptr) Remove();
    if (loop_ != nullptr) loop_->Stop();
    if (thread_.joinable()) thread_.join();
    std::filesystem::remove_all(base_);
  }

  void Serve() {
    Children children(*loop_);
    NoRoots roots;
    roots.layer = base_ + "/layer";
    NoGuest guest;
    Volumes volumes(base_ + "/volumes", base_ + "/scratch");
    Service service(*loop_, children, std::move(port_),
                    {.roots = &roots,
                     .guest = &guest,
                     .volumes = &volumes,
                     .crun = HUSK_FAKE_CRUN,
                     .crun_state = base_ + "/crun",
                     .places = {.bundles = base_ + "/bundles",
                                .pod_files = base_ + "/pod",
                                .cgroup_root = base_,
                                .huge_pages = {.pools = base_ + "/pools", .compact = base_ + "/compact"}},
                     .size = {.cpus = base_ + "/cpus", .online_policy = base_ + "/policy"},
                     .scratch = base_ + "/scratch",
                     .measure_command = {"/bin/sh", "-c", "echo 4096 2", "sh"}});
    ASSERT_TRUE(service.Start().ok());
    loop_->Run();
  }

  Status Create(const std::string& script, bool with_stdin = false, bool tty = false) {
    v1::CreateContainerRequest request;
    request.mutable_spec()->set_id("c");
    request.mutable_spec()->set_stdin(with_stdin);
    request.mutable_spec()->set_tty(tty);
    request.mutable_spec()->set_oci_config_json(R"({"process":{"args":["/bin/sh","-c",")" + script + R"("]}})");
    return client_->Call<v1::CreateContainerResponse>("CreateContainer", request).status();
  }
  StatusOr<v1::StartContainerResponse> Start() {
    v1::StartContainerRequest request;
    request.set_container_id("c");
    return client_->Call<v1::StartContainerResponse>("StartContainer", request);
  }
  void Remove() {
    v1::RemoveContainerRequest request;
    request.set_container_id("c");
    EXPECT_TRUE(client_->Call<v1::RemoveContainerResponse>("RemoveContainer", request).ok());
  }
  StatusOr<v1::PollResponse> Poll(std::uint64_t offset, bool output, bool watch, const std::string& exec_id = "") {
    v1::PollRequest request;
    if (output) {
      auto& cursor = *request.add_cursors();
      cursor.set_container_id("c");
      cursor.set_exec_id(exec_id);
      cursor.set_kind(v1::STDOUT);
      cursor.set_offset(offset);
      cursor.set_acknowledged(offset);
    }
    if (watch) {
      request.add_watch()->set_container_id("c");
      request.mutable_watch(0)->set_exec_id(exec_id);
    }
    request.set_wait_milliseconds(60'000);
    return client_->Call<v1::PollResponse>("Poll", request);
  }
  StatusOr<std::uint64_t> Write(std::uint64_t offset, const std::string& data, bool close) {
    v1::WriteStdinRequest request;
    request.set_container_id("c");
    request.set_offset(offset);
    request.set_data(data);
    request.set_close(close);
    auto response = client_->Call<v1::WriteStdinResponse>("WriteStdin", request);
    if (!response.ok()) return response.status();
    return response->offset();
  }
  // All of stdout until its end.
  std::string Drain(const std::string& exec_id = "") {
    std::string output;
    for (;;) {
      const auto response = Poll(output.size(), true, false, exec_id);
      if (!response.ok() || response->chunks_size() != 1) {
        ADD_FAILURE() << response.status();
        return output;
      }
      EXPECT_EQ(response->chunks(0).offset(), output.size());
      output += response->chunks(0).data();
      if (response->chunks(0).end()) return output;
    }
  }

  std::string base_;
  UniqueFd host_;
  UniqueFd port_;
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
  std::unique_ptr<TestClient> client_;
};

TEST_F(ServiceTest, RunsAProcessAndTellsItsOutputAndExit) {
  ASSERT_TRUE(Create("echo hello; exit 7").ok());
  const auto started = Start();
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_EQ(Start()->pid(), started->pid()) << "a repetition";
  EXPECT_EQ(Drain(), "hello\n");
  const auto exits = Poll(0, false, true);
  ASSERT_TRUE(exits.ok());
  ASSERT_EQ(exits->exits_size(), 1);
  EXPECT_EQ(exits->exits(0).exit_code(), 7);
}

TEST_F(ServiceTest, TellsTheExitBeforeTheEndOfAStreamThatAChildKeeps) {
  ASSERT_TRUE(Create("(read line; echo $line) <&3 3<&- & exit 3", true).ok());
  Remove();
  ASSERT_TRUE(Create("exec 3<&0; (read line; echo $line) <&3 & exit 3", true).ok());
  ASSERT_TRUE(Start().ok());
  const auto exits = Poll(0, false, true);
  ASSERT_TRUE(exits.ok());
  ASSERT_EQ(exits->exits_size(), 1);
  EXPECT_EQ(exits->exits(0).exit_code(), 3);
  // The container's stdin was closed with its exit, so the child reads the end and says an empty line.
  EXPECT_EQ(Drain(), "\n");
}

TEST_F(ServiceTest, BackPressureHoldsTheWriterAndLosesNothing) {
  ASSERT_TRUE(Create("seq 1 200000").ok());
  ASSERT_TRUE(Start().ok());
  std::string expected;
  for (int i = 1; i <= 200'000; ++i) expected += std::to_string(i) + "\n";
  EXPECT_TRUE(Drain() == expected);
}

TEST_F(ServiceTest, StdinByOffsetSkipsRepetitionsAndRefusesGaps) {
  ASSERT_TRUE(Create("cat", true).ok());
  EXPECT_EQ(Write(0, "x", false).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Start().ok());
  EXPECT_EQ(*Write(0, "abc", false), 3U);
  EXPECT_EQ(*Write(1, "bcd", false), 4U);
  EXPECT_EQ(Write(9, "z", false).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(*Write(4, "e", true), 5U);
  EXPECT_EQ(Drain(), "abcde");
}

TEST_F(ServiceTest, ALargeStdinArrivesWhole) {
  ASSERT_TRUE(Create("cat | wc -c", true).ok());
  ASSERT_TRUE(Start().ok());
  const std::string data(3'000'000, 'd');
  std::uint64_t offset = 0;
  while (offset < data.size()) {
    const auto next = Write(offset, data.substr(offset, 700'000), false);
    ASSERT_TRUE(next.ok()) << next.status();
    ASSERT_GT(*next, offset);
    offset = *next;
  }
  ASSERT_TRUE(Write(offset, "", true).ok());
  EXPECT_EQ(Drain(), "3000000\n");
}

TEST_F(ServiceTest, ABrokenConnectionLosesNoByte) {
  ASSERT_TRUE(Create("seq 1 100000; cat", true).ok());
  ASSERT_TRUE(Start().ok());
  // A poll whose answer nobody reads, and half a request; then a new connection on the same bytes.
  v1::PollRequest poll;
  poll.add_cursors()->set_container_id("c");
  poll.mutable_cursors(0)->set_kind(v1::STDOUT);
  client_->SendRaw(client_->Bytes("Poll", poll));
  v1::WriteStdinRequest write;
  write.set_container_id("c");
  write.set_data(std::string(10'000, 'n'));
  client_->SendRaw(client_->Bytes("WriteStdin", write).substr(0, 3'333));
  client_->Connect("fedcba9876543210");
  ASSERT_TRUE(Write(0, "end", true).ok());
  std::string expected;
  for (int i = 1; i <= 100'000; ++i) expected += std::to_string(i) + "\n";
  EXPECT_TRUE(Drain() == expected + "end");
}

TEST_F(ServiceTest, ResourcesChangeBeforeTheStartAndWhileItRuns) {
  const auto update = [this](const char* id, const char* json) {
    v1::UpdateResourcesRequest request;
    request.set_container_id(id);
    request.set_resources_json(json);
    return client_->Call<v1::UpdateResourcesResponse>("UpdateResources", request).status();
  };
  const auto read = [this](const std::string& path) {
    const auto text = ReadFile(base_ + path);
    return text.ok() ? *text : "";
  };
  EXPECT_EQ(update("c", "{}").code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(Create("cat", true).ok());
  EXPECT_EQ(update("c", "[]").code(), absl::StatusCode::kInvalidArgument);
  std::filesystem::create_directories(base_ + "/husk/c");
  std::ofstream(base_ + "/husk/c/memory.max") << "max\n";
  ASSERT_TRUE(update("c", R"({"memory":{"limit":111}})").ok());
  EXPECT_NE(read("/bundles/c/config.json").find(R"("resources":{"memory":{"limit":111}})"), std::string::npos);
  EXPECT_EQ(read("/husk/c/memory.max"), "max\n") << "nothing runs yet";
  ASSERT_TRUE(Start().ok());
  ASSERT_TRUE(update("c", R"({"memory":{"limit":222}})").ok());
  EXPECT_EQ(read("/husk/c/memory.max"), "222\n");
  std::ofstream(base_ + "/husk/c/memory.max") << "not again\n";
  ASSERT_TRUE(update("c", R"({"memory":{"limit":222}})").ok());
  EXPECT_EQ(read("/husk/c/memory.max"), "not again\n") << "once is enough";
  const Status refused = update("c", R"({"cpu":{"shares":3}})");
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("cpu.weight: the guest's kernel has no such file"), std::string::npos) << refused;
  ASSERT_TRUE(update("c", R"({"memory":{"limit":222}})").ok());
  EXPECT_EQ(read("/husk/c/memory.max"), "not again\n") << "what was refused has changed nothing";
  std::filesystem::remove_all(base_ + "/husk/c");
  ASSERT_TRUE(Write(0, "", true).ok());
  ASSERT_TRUE(Poll(0, false, true).ok()) << "its end is told";
  EXPECT_TRUE(update("c", R"({"cpu":{"shares":3}})").ok()) << "it has exited";
}

TEST_F(ServiceTest, ALimitBelowWhatIsUsedIsRefused) {
  const auto update = [this](std::int64_t limit, bool check_only) {
    v1::UpdateResourcesRequest request;
    request.set_container_id("c");
    request.set_resources_json(R"({"memory":{"limit":)" + std::to_string(limit) + "}}");
    request.set_check_only(check_only);
    return client_->Call<v1::UpdateResourcesResponse>("UpdateResources", request).status();
  };
  ASSERT_TRUE(Create("cat", true).ok());
  ASSERT_TRUE(Start().ok());
  const std::string cgroup = base_ + "/husk/c";
  std::filesystem::create_directories(cgroup);
  std::ofstream(cgroup + "/memory.current") << "5000\n";
  std::ofstream(cgroup + "/memory.stat") << "inactive_file 1000\n";
  std::ofstream(cgroup + "/memory.max") << "9999\n";
  const auto limit = [&cgroup] { return ReadFile(cgroup + "/memory.max").value_or(""); };
  for (const bool check_only : {true, false}) {
    const Status refused = update(3999, check_only);
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(refused.message(), "memory_limit_in_bytes: 3999 is less than the 4000 bytes that the container uses");
  }
  EXPECT_TRUE(update(4000, true).ok());
  EXPECT_EQ(limit(), "9999\n") << "nothing was changed so far";
  EXPECT_TRUE(update(4000, false).ok());
  EXPECT_EQ(limit(), "4000\n");
  EXPECT_TRUE(update(-1, false).ok()) << "no limit";
  EXPECT_EQ(limit().substr(0, 3), "max");
  std::filesystem::remove_all(cgroup);
  ASSERT_TRUE(Write(0, "", true).ok());
}

TEST_F(ServiceTest, CpusComeAndGoByTheHostsWord) {
  v1::ResizeGuestRequest request;
  EXPECT_EQ(client_->Call<v1::ResizeGuestResponse>("ResizeGuest", request).status().code(),
            absl::StatusCode::kInvalidArgument);
  request.set_cpus(2);
  const auto resized = client_->Call<v1::ResizeGuestResponse>("ResizeGuest", request);
  ASSERT_TRUE(resized.ok()) << resized.status();
  EXPECT_EQ(resized->online_cpus(), 2U);
  EXPECT_GT(resized->memory_total_bytes(), 0U);
  const auto hello = client_->Call<v1::HelloResponse>("Hello", v1::HelloRequest());
  ASSERT_TRUE(hello.ok());
  EXPECT_EQ(hello->online_cpus(), 2U);
}

TEST_F(ServiceTest, HugePagesAreKeptWhileTheContainerLives) {
  const auto create = [this](const char* id, const char* resources) {
    v1::CreateContainerRequest request;
    request.mutable_spec()->set_id(id);
    request.mutable_spec()->set_stdin(true);
    request.mutable_spec()->set_oci_config_json(
        std::string(R"({"process":{"args":["/bin/cat"]},"linux":{"resources":)") + resources + "}}");
    return client_->Call<v1::CreateContainerResponse>("CreateContainer", request).status();
  };
  const auto update = [this](const char* resources) {
    v1::UpdateResourcesRequest request;
    request.set_container_id("c");
    request.set_resources_json(resources);
    return client_->Call<v1::UpdateResourcesResponse>("UpdateResources", request).status();
  };
  const auto count = [this] {
    const auto text = ReadFile(base_ + "/pools/hugepages-2048kB/nr_hugepages");
    return text.ok() ? text->substr(0, text->find('\n')) : "";
  };
  const Status refused = create("c", R"({"hugepageLimits":[{"pageSize":"1GB","limit":1073741824}]})");
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
  EXPECT_NE(refused.message().find("hugepage_limits[1GB]"), std::string::npos) << refused;
  ASSERT_TRUE(
      create("c", R"({"hugepageLimits":[{"pageSize":"2MB","limit":4194304},{"pageSize":"1GB","limit":0}]})").ok());
  EXPECT_EQ(count(), "2");
  const auto config = ReadFile(base_ + "/bundles/c/config.json");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->find("1GB"), std::string::npos) << "no file of the cgroup has that name";
  ASSERT_TRUE(Start().ok());
  std::filesystem::create_directories(base_ + "/husk/c");
  std::ofstream(base_ + "/husk/c/hugetlb.2MB.max") << "4194304\n";
  ASSERT_TRUE(update(R"({"hugepageLimits":[{"pageSize":"2MB","limit":8388608}]})").ok());
  EXPECT_EQ(count(), "4");
  EXPECT_FALSE(update(R"({"cpu":{"shares":3},"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]})").ok());
  EXPECT_EQ(count(), "4") << "the kernel refused, and all stays as it was";
  ASSERT_TRUE(update(R"({"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]})").ok());
  EXPECT_EQ(count(), "1");
  ASSERT_TRUE(Write(0, "", true).ok());
  ASSERT_TRUE(Poll(0, false, true).ok()) << "its end is told";
  EXPECT_EQ(count(), "0") << "it has ended";
  Remove();
  ASSERT_TRUE(create("c", R"({"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]})").ok());
  EXPECT_EQ(count(), "1");
  Remove();
  EXPECT_EQ(count(), "0") << "it was never started";
}

TEST_F(ServiceTest, AMissingProgramIsAStartError) {
  v1::CreateContainerRequest request;
  request.mutable_spec()->set_id("c");
  request.mutable_spec()->set_oci_config_json(R"({"process":{"args":["/no/such/program"]}})");
  ASSERT_TRUE(client_->Call<v1::CreateContainerResponse>("CreateContainer", request).ok());
  EXPECT_EQ(Start().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Start().status().code(), absl::StatusCode::kFailedPrecondition) << "a repetition";
  const auto exits = Poll(0, false, true);
  ASSERT_TRUE(exits.ok());
  EXPECT_EQ(exits->exits(0).exit_code(), 128);
  EXPECT_NE(exits->exits(0).start_error().find("/no/such/program"), std::string::npos);
  EXPECT_EQ(Drain(), "");
}

TEST_F(ServiceTest, ExecRunsBesideTheContainer) {
  ASSERT_TRUE(Create("cat", true).ok());
  v1::ExecRequest exec;
  exec.set_container_id("c");
  exec.set_exec_id("e");
  for (const char* argument : {"/bin/sh", "-c", "test -t 1 && echo terminal; exit 4"}) exec.add_arguments(argument);
  exec.set_tty(true);
  EXPECT_EQ(client_->Call<v1::ExecResponse>("Exec", exec).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Start().ok());
  const auto started = client_->Call<v1::ExecResponse>("Exec", exec);
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_EQ(client_->Call<v1::ExecResponse>("Exec", exec)->pid(), started->pid()) << "a repetition";
  EXPECT_EQ(Drain("e"), "terminal\r\n");
  const auto exits = Poll(0, false, true, "e");
  ASSERT_TRUE(exits.ok());
  EXPECT_EQ(exits->exits(0).exit_code(), 4);
  exec.set_exec_id("missing");
  exec.set_arguments(0, "/no/such");
  exec.set_tty(false);
  EXPECT_EQ(client_->Call<v1::ExecResponse>("Exec", exec).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ServiceTest, UnknownIdsAndMethodsAreTold) {
  const auto response = Poll(0, true, true);
  ASSERT_TRUE(response.ok());
  EXPECT_EQ(response->unknown_size(), 2);
  EXPECT_EQ(Start().status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->Call<v1::HelloResponse>("Nothing", v1::HelloRequest()).status().code(),
            absl::StatusCode::kUnimplemented);
  for (const char* id : {"", "..", "a/b", "-x", "a b"}) {
    v1::CreateContainerRequest request;
    request.mutable_spec()->set_id(id);
    EXPECT_EQ(client_->Call<v1::CreateContainerResponse>("CreateContainer", request).status().code(),
              absl::StatusCode::kInvalidArgument)
        << id;
  }
}

TEST_F(ServiceTest, ASignalEndsTheProcess) {
  ASSERT_TRUE(Create("exec cat", true).ok());
  ASSERT_TRUE(Create("exec cat", true).ok()) << "a repetition";
  EXPECT_EQ(Create("exec dog", true).code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(Start().ok());
  v1::SignalContainerRequest request;
  request.set_container_id("c");
  request.set_signal(SIGTERM);
  ASSERT_TRUE(client_->Call<v1::SignalContainerResponse>("SignalContainer", request).ok());
  const auto exits = Poll(0, false, true);
  ASSERT_TRUE(exits.ok());
  EXPECT_EQ(exits->exits(0).exit_code(), 128 + SIGTERM);
}

TEST_F(ServiceTest, StatsTellOfContainersVolumesAndTheGuest) {
  std::filesystem::create_directories(base_ + "/husk/c");
  std::ofstream(base_ + "/husk/c/cpu.stat") << "usage_usec 5\n";
  std::ofstream(base_ + "/husk/cpu.stat") << "usage_usec 9\n";
  ASSERT_TRUE(Create("true").ok());
  const auto stats = client_->Call<v1::StatsResponse>("Stats", v1::StatsRequest());
  ASSERT_TRUE(stats.ok()) << stats.status();
  ASSERT_EQ(stats->containers_size(), 1);
  EXPECT_EQ(stats->containers(0).container_id(), "c");
  EXPECT_EQ(stats->containers(0).cgroup().cpu().usage_nanoseconds(), 5000U);
  EXPECT_EQ(stats->containers(0).writable_layer().used_bytes(), 4096U);
  EXPECT_EQ(stats->containers(0).writable_layer().inodes(), 2U);
  EXPECT_EQ(stats->guest().containers().cpu().usage_nanoseconds(), 9000U);
  EXPECT_GT(stats->guest().memory_total_bytes(), 0U);
  EXPECT_FALSE(stats->guest().has_scratch_capacity_bytes());
}

}  // namespace
}  // namespace husk::agent
