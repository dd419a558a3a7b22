// What happens to pods and containers, told to whoever listens.
#ifndef HUSK_SANDBOX_EVENT_HUB_H_
#define HUSK_SANDBOX_EVENT_HUB_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "sandbox/types.h"

namespace husk::sandbox {

enum class EventType { kCreated, kStarted, kStopped, kDeleted };

// One change of a container, or of a pod, which then stands in `id` by its own id.
struct Event {
  EventType type = EventType::kCreated;
  std::string id;
  std::int64_t created_at = 0;  // nanoseconds since 1970; of a later event always more
  // The pod and its containers just after the change; a deleted container is not among them.
  PodStatus pod;
  std::vector<ContainerStatus> containers;
};

class EventSubscription;

struct EventHubOptions {
  // Events that may wait for one subscriber, besides those that were kept when it came. One more ends its subscription.
  std::size_t queue_limit = 4096;
  // Events of a recovery, and of this time after it, are kept for those who subscribe meanwhile; at most keep_limit.
  std::chrono::nanoseconds keep_for = std::chrono::minutes(1);
  std::size_t keep_limit = 4096;
};

// Thread safe; its mutex is a leaf and is held for moments. Every subscriber gets the same events in the same order. It
// must outlive those who publish, and may go before its subscriptions.
class EventHub {
 public:
  explicit EventHub(const EventHubOptions& options = EventHubOptions());
  EventHub(const EventHub&) = delete;
  EventHub& operator=(const EventHub&) = delete;
  // Closes.
  ~EventHub();

  // Whether an event would reach anybody: without that its snapshot need not be made.
  [[nodiscard]] bool Wanted();
  // Sets created_at. The change must be visible to reads that begin when this returns, or wait for a lock that the
  // caller holds. Never waits for a subscriber.
  void Publish(Event event);
  // Since the start, but for subscribers.
  struct Counters {
    std::uint64_t published = 0;
    std::uint64_t cut_off = 0;  // subscribers that were too slow
    std::size_t subscribers = 0;
  };
  [[nodiscard]] Counters counters();

  // Around a recovery; before it nothing is kept.
  void BeginRecovery();
  void EndRecovery();

  // From here on the subscriber misses nothing. `wake` is called when there may be something new, with locks held that
  // are not the subscriber's: it must return at once, and call neither the hub nor the subscription. UNAVAILABLE after
  // Close.
  StatusOr<std::shared_ptr<EventSubscription>> Subscribe(std::function<void()> wake);
  // Ends all subscriptions, after what waits for them, with UNAVAILABLE; there are no new ones.
  void Close();

 private:
  using Clock = std::chrono::steady_clock;

  void StopKeepingIfOver() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const EventHubOptions options_;
  Mutex mutex_;
  std::vector<std::weak_ptr<EventSubscription>> subscriptions_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<const Event>> kept_ ABSL_GUARDED_BY(mutex_);
  bool keeping_ ABSL_GUARDED_BY(mutex_) = false;
  Clock::time_point keep_until_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::max();
  std::int64_t last_created_at_ ABSL_GUARDED_BY(mutex_) = 0;
  Counters counters_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

// One listener's events. Thread safe. Ends when it is let go.
class EventSubscription {
 public:
  EventSubscription(std::size_t limit, std::deque<std::shared_ptr<const Event>> waiting, std::function<void()> wake);

  // The next one; null if there is none now, or none any more.
  std::shared_ptr<const Event> Next();
  // Why nothing comes any more: RESOURCE_EXHAUSTED if the listener was too slow (what waited is dropped, because what
  // comes after a gap is of no use), UNAVAILABLE if the hub was closed and everything was taken.
  [[nodiscard]] Status status() const;

 private:
  friend class EventHub;
  // False if this event ended it.
  bool Add(const std::shared_ptr<const Event>& event);
  void End(Status why);

  const std::size_t limit_;
  const std::function<void()> wake_;
  mutable Mutex mutex_;
  std::deque<std::shared_ptr<const Event>> waiting_ ABSL_GUARDED_BY(mutex_);
  Status end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_EVENT_HUB_H_
