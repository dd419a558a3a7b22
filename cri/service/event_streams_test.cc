// GetContainerEvents over a real gRPC channel on a unix socket.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <thread>

#include "absl/strings/str_cat.h"
#include "cri/config/config.h"
#include "cri/proto/api.grpc.pb.h"
#include "cri/service/event_streams.h"
#include "cri/service/fakes_for_test.h"
#include "cri/service/server.h"

namespace husk::cri {
namespace {

namespace api = ::runtime::v1;
using grpc::StatusCode;
using testing::HasSubstr;

// A subscriber whose subscription is known to be made: its response's headers are here.
struct Listener {
  explicit Listener(api::RuntimeService::Stub& stub)
      : stream(stub.GetContainerEvents(&context, api::GetEventsRequest())) {
    stream->WaitForInitialMetadata();
  }
  api::ContainerEventResponse Read() {
    api::ContainerEventResponse event;
    EXPECT_TRUE(stream->Read(&event));
    return event;
  }
  // Of a stream that has ended; how many events came before.
  grpc::Status ReadToEnd(int* count = nullptr) {
    api::ContainerEventResponse event;
    int read = 0;
    while (stream->Read(&event)) ++read;
    if (count != nullptr) *count = read;
    return stream->Finish();
  }
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<api::ContainerEventResponse>> stream;
};

// Counts the streams that have ended, by code.
class CountingObserver final : public CallObserver {
 public:
  void OnCall(std::string_view method, absl::StatusCode code, std::chrono::nanoseconds took) override {
    EXPECT_EQ(method, "GetContainerEvents");
    EXPECT_GE(took.count(), 0);
    const MutexLock lock(mutex_);
    ++counts_[code];
  }
  std::map<absl::StatusCode, std::size_t> counts() {
    const MutexLock lock(mutex_);
    return counts_;
  }

 private:
  Mutex mutex_;
  std::map<absl::StatusCode, std::size_t> counts_ ABSL_GUARDED_BY(mutex_);
};

class EventStreamsTest : public testing::Test {
 protected:
  EventStreamsTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-events-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    auto server = Server::Start(directory_ / "s", &handlers_, &lanes_, &hub_);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const auto channel = grpc::CreateChannel("unix:" + (directory_ / "s").string(), grpc::InsecureChannelCredentials());
    stub_ = api::RuntimeService::NewStub(channel);
  }
  ~EventStreamsTest() override {
    server_->Shutdown(std::chrono::seconds(60));
    server_.reset();
    lanes_.Drain();
    std::filesystem::remove_all(directory_);
  }

  // `bytes`: of a label, to make it large.
  void Publish(sandbox::EventType type, const std::string& id, std::size_t bytes = 0) {
    sandbox::Event event{.type = type, .id = id, .pod = {}, .containers = {}};
    event.pod.id = "pod";
    event.pod.config.metadata = {.name = "web", .uid = "u", .kubernetes_namespace = "n"};
    event.pod.config.labels["large"] = std::string(bytes, 'x');
    event.containers.resize(1);
    event.containers.front().id = id;
    event.containers.front().state = sandbox::ContainerState::kRunning;
    hub_.Publish(std::move(event));
  }

  std::filesystem::path directory_;
  sandbox::EventHub hub_{{.queue_limit = 100}};
  FakeRuntime runtime_;
  FakeNetwork network_;
  FakeImages images_;
  CountingObserver observer_;
  Lanes lanes_{Config().lanes, &observer_};
  Handlers handlers_{{.runtime = &runtime_,
                      .network = &network_,
                      .images = &images_,
                      .lanes = &lanes_,
                      .runtime_ready = [] { return absl::OkStatus(); },
                      .information = [] { return std::map<std::string, std::string>(); }}};
  std::unique_ptr<Server> server_;
  std::unique_ptr<api::RuntimeService::Stub> stub_;
};

TEST_F(EventStreamsTest, EverySubscriberGetsEveryEventWhole) {
  Listener one(*stub_);
  Listener two(*stub_);
  Publish(sandbox::EventType::kCreated, "c1");
  Publish(sandbox::EventType::kStarted, "c1");
  for (Listener* listener : {&one, &two}) {
    const api::ContainerEventResponse created = listener->Read();
    EXPECT_EQ(created.container_id(), "c1");
    EXPECT_EQ(created.container_event_type(), api::CONTAINER_CREATED_EVENT);
    EXPECT_GT(created.created_at(), 0);
    EXPECT_EQ(created.pod_sandbox_status().id(), "pod");
    EXPECT_EQ(created.pod_sandbox_status().metadata().uid(), "u");
    ASSERT_EQ(created.containers_statuses_size(), 1);
    EXPECT_EQ(created.containers_statuses(0).state(), api::CONTAINER_RUNNING);
    const api::ContainerEventResponse started = listener->Read();
    EXPECT_EQ(started.container_event_type(), api::CONTAINER_STARTED_EVENT);
    EXPECT_GT(started.created_at(), created.created_at());
  }
  Publish(sandbox::EventType::kStopped, "c1");
  EXPECT_EQ(two.Read().container_event_type(), api::CONTAINER_STOPPED_EVENT);
  EXPECT_EQ(one.Read().container_event_type(), api::CONTAINER_STOPPED_EVENT);
}

TEST_F(EventStreamsTest, OneThatDoesNotReadIsCutOffAndHoldsUpNobody) {
  Listener slow(*stub_);
  Listener quick(*stub_);
  constexpr int kEvents = 300;
  std::thread reader([&] {
    for (int i = 0; i < kEvents; ++i) EXPECT_EQ(quick.Read().container_id(), absl::StrCat(i));
  });
  // Far more than the transport takes ahead, and slowly enough for the one who reads.
  for (int i = 0; i < kEvents; ++i) {
    Publish(sandbox::EventType::kStarted, absl::StrCat(i), 200'000);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  reader.join();
  int read = 0;
  const grpc::Status status = slow.ReadToEnd(&read);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("too slow"));
  EXPECT_LT(read, kEvents - 100);
}

TEST_F(EventStreamsTest, ACancelledOneIsFreed) {
  std::vector<std::unique_ptr<Listener>> listeners;
  for (std::size_t i = 0; i < kMostEventStreams; ++i) listeners.push_back(std::make_unique<Listener>(*stub_));
  Listener excess(*stub_);
  const grpc::Status refused = excess.ReadToEnd();
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("already 32 subscribers"));
  Publish(sandbox::EventType::kStarted, "c");
  for (const auto& listener : listeners) {
    listener->context.TryCancel();
    EXPECT_EQ(listener->ReadToEnd().error_code(), StatusCode::CANCELLED);
  }
  // The clients are told before the server has heard of it.
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  bool accepted = false;
  while (!accepted && std::chrono::steady_clock::now() < until) {
    Listener again(*stub_);
    Publish(sandbox::EventType::kStarted, "c");
    api::ContainerEventResponse event;
    accepted = again.stream->Read(&event);
    again.context.TryCancel();
    again.stream->Finish();
  }
  EXPECT_TRUE(accepted);
  while (hub_.Wanted() && std::chrono::steady_clock::now() < until) {
    Publish(sandbox::EventType::kStarted, "c");
    // Not so many that one ends for being too slow before it hears that its client has gone.
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_FALSE(hub_.Wanted());
  // A stream is counted when gRPC is done with it, which is after it has left the hub.
  auto counts = observer_.counts();
  while (counts[absl::StatusCode::kCancelled] < kMostEventStreams + 1 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    counts = observer_.counts();
  }
  EXPECT_EQ(counts[absl::StatusCode::kCancelled], kMostEventStreams + 1);
  EXPECT_GE(counts[absl::StatusCode::kResourceExhausted], 1U) << "those that were refused";
}

TEST_F(EventStreamsTest, ShutdownEndsThem) {
  Listener listener(*stub_);
  Publish(sandbox::EventType::kStarted, "last");
  std::thread stopper([&] { server_->Shutdown(std::chrono::hours(1)); });
  EXPECT_EQ(listener.Read().container_id(), "last");
  const grpc::Status status = listener.ReadToEnd();
  stopper.join();
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("stopping"));
  EXPECT_EQ(observer_.counts().at(absl::StatusCode::kUnavailable), 1U);
}

}  // namespace
}  // namespace husk::cri
