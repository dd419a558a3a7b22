// Waiting for a condition as long as a context lasts, and taking turns.
#ifndef HUSK_SANDBOX_WAITING_H_
#define HUSK_SANDBOX_WAITING_H_

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <stop_token>
#include <utility>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"

namespace husk::sandbox {

// Waits until `reached` returns true (OK) or the context ends (its error). `reached` is called with the mutex held,
// again after each notification of `changed`, and may change what the mutex guards. Call without the mutex.
template <typename Predicate>
Status WaitFor(const Context& context, Mutex& mutex, ConditionVariable& changed,
               Predicate reached) ABSL_NO_THREAD_SAFETY_ANALYSIS {  // The predicate names the mutex in its own words.
  struct Wake {
    Mutex* mutex;
    ConditionVariable* changed;
    void operator()() const {
      const MutexLock lock(*mutex);
      changed->NotifyAll();
    }
  };
  // Its destructor waits for a callback that is running and wants the mutex: it has to outlive the lock.
  const std::stop_callback<Wake> wake(context.stop_token(), Wake{&mutex, &changed});
  const MutexLock lock(mutex);
  while (!reached()) {
    HUSK_RETURN_IF_ERROR(context.Check());
    // time_point::max() overflows inside the condition variable.
    changed.WaitUntil(mutex, std::min(context.deadline(), Context::Clock::now() + std::chrono::hours(1)));
  }
  return absl::OkStatus();
}

// A lock whose waiters queue in order and give up when their context ends. Thread safe.
class TurnLock {
 public:
  // Holds the lock until it goes. Movable; must not outlive its lock.
  class Turn {
   public:
    Turn() = default;
    Turn(Turn&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)) {}
    Turn& operator=(Turn&& other) noexcept {
      std::swap(owner_, other.owner_);
      return *this;
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
      if (owner_ != nullptr) owner_->Leave();
    }

   private:
    friend class TurnLock;
    explicit Turn(TurnLock* owner) : owner_(owner) {}
    TurnLock* owner_ = nullptr;
  };

  StatusOr<Turn> Take(const Context& context) {
    std::uint64_t ticket = 0;
    {
      const MutexLock lock(mutex_);
      ticket = next_ticket_++;
      queue_.push_back(ticket);
    }
    const Status status = WaitFor(context, mutex_, changed_,
                                  [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return queue_.front() == ticket; });
    if (status.ok()) return Turn(this);
    const MutexLock lock(mutex_);
    queue_.erase(std::find(queue_.begin(), queue_.end(), ticket));
    changed_.NotifyAll();
    return Annotate(status, "wait for the pod's operations before this one");
  }

 private:
  void Leave() {
    const MutexLock lock(mutex_);
    queue_.pop_front();
    changed_.NotifyAll();
  }

  Mutex mutex_;
  ConditionVariable changed_;
  std::uint64_t next_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::uint64_t> queue_ ABSL_GUARDED_BY(mutex_);  // the front one holds the lock
};

// A number of places for what must not be done too often at once. Waiters get them in the order they came, and give up
// when their context ends. Thread safe.
class Places {
 public:
  // Holds a place until it goes. Movable; must not outlive its Places.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)) {}
    Place& operator=(Place&& other) noexcept {
      std::swap(owner_, other.owner_);
      return *this;
    }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    ~Place() { Release(); }
    void Release() {
      if (owner_ != nullptr) std::exchange(owner_, nullptr)->Leave();
    }

   private:
    friend class Places;
    explicit Place(Places* owner) : owner_(owner) {}
    Places* owner_ = nullptr;
  };

  explicit Places(std::uint32_t count) : free_(count) {}

  StatusOr<Place> Take(const Context& context) {
    std::uint64_t ticket = 0;
    {
      const MutexLock lock(mutex_);
      ticket = next_ticket_++;
      queue_.push_back(ticket);
    }
    const Status status = WaitFor(context, mutex_, changed_, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return free_ > 0 && queue_.front() == ticket;
    });
    const MutexLock lock(mutex_);
    queue_.erase(std::find(queue_.begin(), queue_.end(), ticket));
    // There may be a place for whoever is the first one now.
    changed_.NotifyAll();
    if (!status.ok()) return status;
    --free_;
    return Place(this);
  }

  // How many are in the queue.
  [[nodiscard]] std::size_t waiting() const {
    const MutexLock lock(mutex_);
    return queue_.size();
  }

 private:
  void Leave() {
    const MutexLock lock(mutex_);
    ++free_;
    changed_.NotifyAll();
  }

  mutable Mutex mutex_;
  ConditionVariable changed_;
  std::uint32_t free_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t next_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::uint64_t> queue_ ABSL_GUARDED_BY(mutex_);  // of those who wait
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_WAITING_H_
