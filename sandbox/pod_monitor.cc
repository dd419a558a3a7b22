#include "sandbox/pod_monitor.h"
#include "sandbox/logging.h"

#include <algorithm>
#include <utility>

namespace husk::sandbox {
namespace {

using Clock = Context::Clock;
using std::chrono::milliseconds;

constexpr auto kPollWait = milliseconds(5000);
// How much longer than its wait a poll may take before it counts as failed.
constexpr auto kPollSlack = std::chrono::seconds(20);
constexpr auto kSaveInterval = std::chrono::seconds(1);
constexpr std::uint64_t kSaveBytes = std::uint64_t{1} << 20;
constexpr auto kFirstRetry = milliseconds(50);
constexpr auto kLongestRetry = milliseconds(2000);
// An agent that answers at once without saying anything new must not make this thread spin.
constexpr auto kIdlePause = milliseconds(100);

}  // namespace

PodMonitor::PodMonitor(std::string pod_id, std::shared_ptr<agent::AgentClient> client, MonitorHandlers handlers)
    : pod_id_(std::move(pod_id)),
      client_(std::move(client)),
      handlers_(std::move(handlers)),
      thread_([this] { Run(); }) {}

PodMonitor::~PodMonitor() {
  Stop();
}

void PodMonitor::Watch(const std::string& container_id, std::shared_ptr<ContainerOutput> output) {
  auto watched = std::make_shared<Watched>();
  watched->container_id = container_id;
  watched->output = std::move(output);
  const MutexLock lock(mutex_);
  watched_[container_id] = std::move(watched);
  Interrupt();
}

void PodMonitor::Forget(const std::string& container_id) {
  const MutexLock lock(mutex_);
  if (watched_.erase(container_id) != 0) Interrupt();
}

void PodMonitor::RequestStop() {
  const MutexLock lock(mutex_);
  stopping_ = true;
  Interrupt();
}

void PodMonitor::Stop() {
  RequestStop();
  if (thread_.joinable()) thread_.join();
}

void PodMonitor::Interrupt() {
  interrupt_.request_stop();
  changed_.NotifyAll();
}

PodMonitor::WatchedList PodMonitor::AwaitWatched(std::stop_token& interrupted) {
  const MutexLock lock(mutex_);
  std::erase_if(watched_, [](const auto& entry) { return entry.second->finished; });
  while (!stopping_ && watched_.empty()) changed_.Wait(mutex_);
  WatchedList list;
  if (stopping_) return list;
  interrupt_ = std::stop_source();
  interrupted = interrupt_.get_token();
  for (const auto& [id, watched] : watched_) list.push_back(watched);
  return list;
}

void PodMonitor::Run() {
  auto retry = kFirstRetry;
  WatchedList last;
  for (;;) {
    std::stop_token interrupted;
    WatchedList list = AwaitWatched(interrupted);
    if (list.empty()) break;
    last = list;
    const Context context = Context::Background("monitor-" + pod_id_.substr(0, 12)).WithStopToken(interrupted);
    if (PollOnce(context, list)) {
      retry = kFirstRetry;
    } else {
      SleepFor(context, retry).IgnoreError();
      retry = std::min(2 * retry, milliseconds(kLongestRetry));
    }
    Settle(list);
  }
  for (const auto& watched : last) {
    if (!watched->finished && watched->save_at) Save(*watched);
  }
}

bool PodMonitor::PollOnce(const Context& context, const WatchedList& list) {
  agent::v1::PollRequest request;
  auto wake_at = Clock::now() + kPollWait;
  for (const auto& watched : list) {
    watched->output->AddCursors(request);
    if (watched->drain) {
      wake_at = std::min(wake_at, watched->drain->deadline());
    } else {
      request.add_watch()->set_container_id(watched->container_id);
    }
    if (watched->save_at) wake_at = std::min(wake_at, *watched->save_at);
  }
  *request.mutable_memory() = memory_told_.value_or(agent::v1::MemoryNews());
  const auto wait = std::max(milliseconds(0), std::chrono::ceil<milliseconds>(wake_at - Clock::now()));
  request.set_wait_milliseconds(static_cast<std::uint32_t>(wait.count()));
  const auto asked_at = Clock::now();
  auto response = client_->Poll(context.WithTimeout(wait + kPollSlack), request);
  if (!response.ok()) {
    if (context.stop_token().stop_requested()) return true;
    for (const auto& watched : list) {
      if (watched->drain) watched->drain->Idle();
    }
    spdlog::warn("pod={} poll its agent: {}", pod_id_, Words(response.status()));
    return false;
  }
  DigestMemory(*response);
  const bool said_something = response->chunks_size() + response->exits_size() + response->unknown_size() > 0;
  const bool early = Clock::now() - asked_at < wait;
  if (!Digest(*response, list) && (said_something || early)) SleepFor(context, kIdlePause).IgnoreError();
  return true;
}

void PodMonitor::DigestMemory(const agent::v1::PollResponse& response) {
  if (!response.has_memory()) {
    // There was none to tell.
    if (!memory_told_) memory_told_.emplace();
    return;
  }
  const bool shortage = memory_told_ && response.memory().shortages() > memory_told_->shortages();
  const bool surplus = memory_told_ && response.memory().surpluses() > memory_told_->surpluses();
  memory_told_ = response.memory();
  if (shortage || surplus) handlers_.memory({.shortage = shortage, .spare_bytes = response.spare_memory_bytes()});
}

bool PodMonitor::Digest(const agent::v1::PollResponse& response, const WatchedList& list) {
  const auto find = [&](const std::string& container_id, const std::string& exec_id) -> Watched* {
    if (!exec_id.empty()) return nullptr;
    const auto found =
        std::find_if(list.begin(), list.end(), [&](const auto& entry) { return entry->container_id == container_id; });
    return found == list.end() ? nullptr : found->get();
  };
  const auto ended = [](Watched& watched, ProcessExit exit) {
    watched.exit = std::move(exit);
    watched.drain.emplace();
  };
  for (const auto& watched : list) {
    watched->polled_bytes = 0;
    watched->polled_news = false;
  }
  bool news = false;
  for (const auto& chunk : response.chunks()) {
    Watched* watched = find(chunk.container_id(), chunk.exec_id());
    if (watched == nullptr || !watched->output->Take(chunk)) continue;
    news = true;
    watched->polled_news = true;
    watched->polled_bytes += chunk.data().size();
    watched->unsaved_bytes += chunk.data().size();
    handlers_.logged(chunk.data().size());
    if (!watched->save_at) watched->save_at = Clock::now() + kSaveInterval;
  }
  for (const auto& watched : list) {
    if (watched->drain && watched->polled_news) watched->drain->Progress(watched->polled_bytes);
    if (watched->drain && !watched->polled_news) watched->drain->Idle();
  }
  for (const auto& process : response.exits()) {
    Watched* watched = find(process.container_id(), process.exec_id());
    if (watched == nullptr || watched->exit || process.state() != agent::v1::EXITED) continue;
    news = true;
    ended(*watched, {.exit_code = process.exit_code(),
                     .oom_killed = process.oom_killed(),
                     .guest_out_of_memory = process.guest_out_of_memory(),
                     .start_error = process.start_error(),
                     .started_at = process.started_at(),
                     .finished_at = process.finished_at()});
  }
  for (const auto& reference : response.unknown()) {
    Watched* watched = find(reference.container_id(), reference.exec_id());
    if (watched == nullptr) continue;
    news = true;
    if (!watched->exit) ended(*watched, {.exit_code = 255, .unknown = true});
    // Nobody will end its streams.
    watched->drain->Abandon();
  }
  return news;
}

void PodMonitor::Settle(const WatchedList& list) {
  const auto now = Clock::now();
  for (const auto& watched : list) {
    {
      const MutexLock lock(mutex_);
      if (stopping_ || !watched_.contains(watched->container_id)) continue;
    }
    if (watched->exit && (watched->output->ended() || watched->drain->over())) {
      watched->output->Finish();
      Save(*watched);
      watched->finished = true;
      handlers_.exited(watched->container_id, *watched->exit);
    } else if (watched->unsaved_bytes >= kSaveBytes || (watched->save_at && now >= *watched->save_at)) {
      Save(*watched);
    }
  }
}

void PodMonitor::Save(Watched& watched) const {
  watched.unsaved_bytes = 0;
  watched.save_at.reset();
  handlers_.checkpoint(watched.container_id, watched.output->checkpoint());
}

}  // namespace husk::sandbox
