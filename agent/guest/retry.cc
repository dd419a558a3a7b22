#include "agent/guest/retry.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace husk::agent {
namespace {

constexpr auto kFirstPause = std::chrono::milliseconds(2);
constexpr auto kLongestPause = std::chrono::milliseconds(50);

struct Attempt : std::enable_shared_from_this<Attempt> {
  EventLoop* loop = nullptr;
  EventLoop::Clock::time_point end;
  EventLoop::Clock::duration pause = kFirstPause;
  std::function<Status()> attempt;
  std::function<void(Status)> done;

  void Run() {
    const Status status = attempt();
    if (status.ok() || EventLoop::Clock::now() >= end) {
      done(status);
      return;
    }
    loop->After(pause, [self = shared_from_this()] { self->Run(); });
    pause = std::min<EventLoop::Clock::duration>(pause * 2, kLongestPause);
  }
};

}  // namespace

void Retry(EventLoop& loop, EventLoop::Clock::duration patience, std::function<Status()> attempt,
           std::function<void(Status)> done) {
  auto state = std::make_shared<Attempt>();
  state->loop = &loop;
  state->end = EventLoop::Clock::now() + patience;
  state->attempt = std::move(attempt);
  state->done = std::move(done);
  state->Run();
}

}  // namespace husk::agent
