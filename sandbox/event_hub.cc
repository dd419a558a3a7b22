#include "sandbox/event_hub.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::sandbox {

namespace {

std::int64_t NowNanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

EventHub::EventHub(const EventHubOptions& options) : options_(options) {}

EventHub::~EventHub() {
  Close();
}

bool EventHub::Wanted() {
  const MutexLock lock(mutex_);
  StopKeepingIfOver();
  return keeping_ || !subscriptions_.empty();
}

void EventHub::Publish(Event event) {
  const MutexLock lock(mutex_);
  StopKeepingIfOver();
  // The kubelet takes an event for stale that is not newer than what it knows.
  event.created_at = last_created_at_ = std::max(NowNanoseconds(), last_created_at_ + 1);
  const auto shared = std::make_shared<const Event>(std::move(event));
  ++counters_.published;
  if (keeping_ && kept_.size() < options_.keep_limit) {
    kept_.push_back(shared);
    if (kept_.size() == options_.keep_limit) {
      spdlog::warn("more than {} events since the start: later subscribers get the first of them only", kept_.size());
    }
  }
  std::size_t cut_off = 0;
  std::erase_if(subscriptions_, [&](const std::weak_ptr<EventSubscription>& weak) {
    const auto subscription = weak.lock();
    if (subscription && !subscription->Add(shared)) ++cut_off;
    return subscription == nullptr;
  });
  counters_.cut_off += cut_off;
}

EventHub::Counters EventHub::counters() {
  const MutexLock lock(mutex_);
  std::erase_if(subscriptions_, [](const auto& weak) { return weak.expired(); });
  Counters counters = counters_;
  counters.subscribers = subscriptions_.size();
  return counters;
}

void EventHub::BeginRecovery() {
  const MutexLock lock(mutex_);
  keeping_ = true;
}

void EventHub::EndRecovery() {
  const MutexLock lock(mutex_);
  keep_until_ = Clock::now() + options_.keep_for;
}

void EventHub::StopKeepingIfOver() {
  if (!keeping_ || Clock::now() < keep_until_) return;
  keeping_ = false;
  kept_ = {};
}

StatusOr<std::shared_ptr<EventSubscription>> EventHub::Subscribe(std::function<void()> wake) {
  const MutexLock lock(mutex_);
  if (closed_) return absl::UnavailableError("huskd is stopping");
  StopKeepingIfOver();
  auto subscription = std::make_shared<EventSubscription>(
      kept_.size() + options_.queue_limit, std::deque<std::shared_ptr<const Event>>(kept_.begin(), kept_.end()),
      std::move(wake));
  subscriptions_.push_back(subscription);
  return subscription;
}

void EventHub::Close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  keeping_ = false;
  for (const auto& weak : std::exchange(subscriptions_, {})) {
    if (const auto subscription = weak.lock()) subscription->End(absl::UnavailableError("huskd is stopping"));
  }
}

EventSubscription::EventSubscription(std::size_t limit, std::deque<std::shared_ptr<const Event>> waiting,
                                     std::function<void()> wake)
    : limit_(limit), wake_(std::move(wake)), waiting_(std::move(waiting)) {}

std::shared_ptr<const Event> EventSubscription::Next() {
  const MutexLock lock(mutex_);
  if (waiting_.empty()) return nullptr;
  auto next = std::move(waiting_.front());
  waiting_.pop_front();
  return next;
}

Status EventSubscription::status() const {
  const MutexLock lock(mutex_);
  return waiting_.empty() ? end_ : absl::OkStatus();
}

bool EventSubscription::Add(const std::shared_ptr<const Event>& event) {
  bool taken = true;
  {
    const MutexLock lock(mutex_);
    if (!end_.ok()) return true;
    if (waiting_.size() < limit_) {
      waiting_.push_back(event);
    } else {
      end_ = absl::ResourceExhaustedError(absl::StrCat(
          "the subscriber is too slow: ", limit_, " events wait for it, and further ones would be lost; list anew"));
      waiting_.clear();
      taken = false;
    }
  }
  wake_();
  return taken;
}

void EventSubscription::End(Status why) {
  {
    const MutexLock lock(mutex_);
    if (end_.ok()) end_ = std::move(why);
  }
  wake_();
}

}  // namespace husk::sandbox
