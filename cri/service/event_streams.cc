#include "cri/service/event_streams.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cri/convert/event.h"
#include "cri/service/grpc_status.h"

namespace husk::cri {

namespace api = ::runtime::v1;

// Kept by EventStreams until OnDone. At most one write is under way; `mutex_` is held while gRPC is told of the next
// one, so that none begins after Finish. gRPC calls back on threads of its own, never from within.
class EventStreams::Stream final : public grpc::ServerWriteReactor<api::ContainerEventResponse> {
 public:
  explicit Stream(EventStreams* owner) : owner_(owner) {}

  void Begin(StatusOr<std::shared_ptr<sandbox::EventSubscription>> subscription) {
    const MutexLock lock(mutex_);
    if (!subscription.ok()) return End(ToGrpcStatus(subscription.status()));
    subscription_ = *std::move(subscription);
    spdlog::debug("method=GetContainerEvents: a subscriber came");
    StartSendInitialMetadata();
    WriteNext();
  }

  // There may be news.
  void Pump() {
    const MutexLock lock(mutex_);
    WriteNext();
  }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_ || subscription_ == nullptr) return;
    if (const Status status = subscription_->status(); !status.ok()) return End(ToGrpcStatus(status));
    if (writing_) return;
    const auto event = subscription_->Next();
    if (event == nullptr) return;
    response_.Clear();
    EventToProto(*event, &response_);
    writing_ = true;
    StartWrite(&response_);
  }

  void End(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(finished_, true)) return;
    if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
      spdlog::warn("method=GetContainerEvents: {}", status.error_message());
    }
    // The same numbers in both.
    owner_->observer_->OnCall("GetContainerEvents", static_cast<absl::StatusCode>(status.error_code()),
                              std::chrono::steady_clock::now() - began_);
    subscription_ = nullptr;
    Finish(status);
  }

  void OnWriteDone(bool ok) override {
    const MutexLock lock(mutex_);
    writing_ = false;
    if (!ok) return End(grpc::Status(grpc::StatusCode::CANCELLED, "the client has gone"));
    WriteNext();
  }
  void OnCancel() override {
    const MutexLock lock(mutex_);
    End(grpc::Status(grpc::StatusCode::CANCELLED, "the client has gone"));
  }
  void OnDone() override { owner_->Remove(this); }

  EventStreams* const owner_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  Mutex mutex_;
  std::shared_ptr<sandbox::EventSubscription> subscription_ ABSL_GUARDED_BY(mutex_);
  api::ContainerEventResponse response_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

EventStreams::EventStreams(sandbox::EventHub* hub, CallObserver* observer)
    : hub_(hub), observer_(observer), dispatcher_([this] { Dispatch(); }) {}

EventStreams::~EventStreams() {
  {
    const MutexLock lock(mutex_);
    ending_ = true;
    changed_.NotifyAll();
  }
  dispatcher_.join();
}

grpc::ServerWriteReactor<api::ContainerEventResponse>* EventStreams::Open() {
  auto stream = std::make_shared<Stream>(this);
  bool room = false;
  {
    const MutexLock lock(mutex_);
    room = streams_.size() < kMostEventStreams;
    streams_.push_back(stream);
  }
  if (room) {
    stream->Begin(hub_->Subscribe([this] { Wake(); }));
  } else {
    stream->Begin(absl::ResourceExhaustedError(
        absl::StrCat("GetContainerEvents: there are already ", kMostEventStreams, " subscribers")));
  }
  return stream.get();
}

void EventStreams::Dispatch() {
  for (;;) {
    std::vector<std::shared_ptr<Stream>> streams;
    {
      const MutexLock lock(mutex_);
      while (!news_ && !ending_) changed_.Wait(mutex_);
      if (ending_) return;
      news_ = false;
      streams = streams_;
    }
    for (const auto& stream : streams) stream->Pump();
  }
}

void EventStreams::Wake() {
  const MutexLock lock(mutex_);
  news_ = true;
  changed_.NotifyAll();
}

void EventStreams::Remove(const Stream* stream) {
  std::shared_ptr<Stream> removed;  // destroyed without the mutex
  const MutexLock lock(mutex_);
  const auto found =
      std::find_if(streams_.begin(), streams_.end(), [&](const auto& entry) { return entry.get() == stream; });
  if (found == streams_.end()) return;
  removed = std::move(*found);
  streams_.erase(found);
}

}  // namespace husk::cri
