#include "sandbox/owed_teardowns.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/logging.h"

namespace husk::sandbox {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLongestRetry{300'000};
constexpr auto kTimeout = std::chrono::minutes(1);

}  // namespace

void OwedTeardowns::Owe(const std::string& name, Teardown teardown) {
  const MutexLock lock(mutex_);
  if (stop_.stop_requested()) return;
  const auto [entry, added] = entries_.try_emplace(
      name, Entry{.teardown = std::move(teardown), .retry = first_retry_, .due = Clock::now() + first_retry_});
  if (!added && running_ == name) entry->second.again = true;
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  changed_.NotifyAll();
}

void OwedTeardowns::Interrupt(const std::string& name) {
  std::stop_source interrupt(std::nostopstate);
  {
    const MutexLock lock(mutex_);
    if (running_ != name) return;
    interrupt = interrupt_;
  }
  interrupt.request_stop();
}

void OwedTeardowns::Stop() {
  stop_.request_stop();
  std::thread thread;
  {
    const MutexLock lock(mutex_);
    changed_.NotifyAll();
    thread = std::move(thread_);
  }
  if (thread.joinable()) thread.join();
  std::map<std::string, Entry> dropped;  // what they hold is let go without the mutex
  const MutexLock lock(mutex_);
  dropped.swap(entries_);
}

std::string OwedTeardowns::AwaitDue(Teardown& teardown, std::stop_token& interrupted) {
  const MutexLock lock(mutex_);
  running_.clear();
  while (!stop_.stop_requested()) {
    const auto first = std::min_element(entries_.begin(), entries_.end(), [](const auto& one, const auto& other) {
      return one.second.due < other.second.due;
    });
    if (first == entries_.end()) {
      changed_.Wait(mutex_);
    } else if (first->second.due > Clock::now()) {
      changed_.WaitUntil(mutex_, first->second.due);
    } else {
      teardown = first->second.teardown;
      interrupt_ = std::stop_source();
      interrupted = interrupt_.get_token();
      running_ = first->first;
      return running_;
    }
  }
  return "";
}

void OwedTeardowns::Note(const std::string& name, const Status& status) {
  Teardown dropped;
  const MutexLock lock(mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  if (status.ok() && std::exchange(entry.again, false)) {
    entry.retry = first_retry_;
    entry.due = Clock::now();
    return;
  }
  if (status.ok()) {
    spdlog::info("{}: done", name);
    dropped = std::move(found->second.teardown);
    entries_.erase(found);
    return;
  }
  entry.again = false;
  entry.retry = std::min(2 * entry.retry, kLongestRetry);
  entry.due = Clock::now() + entry.retry;
  spdlog::warn("{}: {}; trying again in {} ms", name, Words(status), entry.retry.count());
}

void OwedTeardowns::Run() {
  for (;;) {
    Teardown teardown;
    std::stop_token interrupted;
    const std::string name = AwaitDue(teardown, interrupted);
    if (name.empty()) return;
    const Context context = Context::Background(absl::StrCat("owed ", name))
                                .WithTimeout(kTimeout)
                                .WithStopToken(stop_.get_token())
                                .WithStopToken(interrupted);
    Note(name, teardown(context));
  }
}

}  // namespace husk::sandbox
