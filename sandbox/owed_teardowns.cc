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

void OwedTeardowns::Owe(const std::string& name, Teardown teardown, Telling telling) {
  const MutexLock lock(mutex_);
  if (stop_.stop_requested()) return;
  const auto [entry, added] = entries_.try_emplace(name, Entry{.teardown = std::move(teardown),
                                                               .retry = first_retry_,
                                                               .due = Clock::now() + first_retry_,
                                                               .telling = telling});
  if (!added && entry->second.running) entry->second.again = true;
  if (threads_.size() < std::min(entries_.size(), most_threads_)) threads_.emplace_back([this] { Run(); });
  changed_.NotifyAll();
}

void OwedTeardowns::Interrupt(const std::string& name) {
  std::stop_source interrupt(std::nostopstate);
  {
    const MutexLock lock(mutex_);
    const auto found = entries_.find(name);
    if (found == entries_.end() || !found->second.running) return;
    interrupt = found->second.interrupt;
  }
  interrupt.request_stop();
}

void OwedTeardowns::Stop() {
  stop_.request_stop();
  std::vector<std::thread> threads;
  {
    const MutexLock lock(mutex_);
    changed_.NotifyAll();
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  std::map<std::string, Entry> dropped;  // what they hold is let go without the mutex
  const MutexLock lock(mutex_);
  dropped.swap(entries_);
}

std::optional<OwedTeardowns::Attempt> OwedTeardowns::AwaitDue() {
  const MutexLock lock(mutex_);
  while (!stop_.stop_requested()) {
    auto first = entries_.end();
    for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
      if (entry->second.running) continue;
      if (first == entries_.end() || entry->second.due < first->second.due) first = entry;
    }
    if (first == entries_.end()) {
      changed_.Wait(mutex_);
    } else if (first->second.due > Clock::now()) {
      changed_.WaitUntil(mutex_, first->second.due);
    } else {
      Entry& entry = first->second;
      entry.running = true;
      entry.interrupt = std::stop_source();
      return Attempt{.name = first->first, .teardown = entry.teardown, .interrupted = entry.interrupt.get_token()};
    }
  }
  return std::nullopt;
}

void OwedTeardowns::Note(const std::string& name, const Status& status) {
  Teardown dropped;
  const MutexLock lock(mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  entry.running = false;
  if (status.ok() && std::exchange(entry.again, false)) {
    entry.retry = first_retry_;
    entry.due = Clock::now();
    return;
  }
  if (status.ok()) {
    spdlog::log(entry.telling == Telling::kEnd ? spdlog::level::info : spdlog::level::debug, "{}: done", name);
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
  while (const auto attempt = AwaitDue()) {
    const Context context = Context::Background(absl::StrCat("owed ", attempt->name))
                                .WithTimeout(kTimeout)
                                .WithStopToken(stop_.get_token())
                                .WithStopToken(attempt->interrupted);
    Note(attempt->name, attempt->teardown(context));
  }
}

}  // namespace husk::sandbox
