#include "agent/guest/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <vector>

namespace husk::agent {

StatusOr<std::unique_ptr<EventLoop>> EventLoop::Create() {
  std::unique_ptr<EventLoop> loop(new EventLoop());
  loop->epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_.valid()) return ErrnoStatus(errno, "epoll_create1");
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGCHLD);
  loop->signals_ = UniqueFd(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!loop->signals_.valid()) return ErrnoStatus(errno, "signalfd");
  loop->stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->stop_.valid()) return ErrnoStatus(errno, "eventfd");
  EventLoop* self = loop.get();
  HUSK_RETURN_IF_ERROR(loop->Watch(self->signals_.get(), EPOLLIN, [self](std::uint32_t) { self->ReapChildren(); }));
  HUSK_RETURN_IF_ERROR(loop->Watch(self->stop_.get(), EPOLLIN, [self](std::uint32_t) {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = read(self->stop_.get(), &count, sizeof(count));
    self->running_ = false;
  }));
  return loop;
}

Status EventLoop::Watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> callback) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return ErrnoStatus(errno, "epoll_ctl");
  watches_[fd] = std::make_shared<std::function<void(std::uint32_t)>>(std::move(callback));
  return absl::OkStatus();
}

void EventLoop::SetEvents(int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::Unwatch(int fd) {
  if (watches_.erase(fd) > 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::TimerId EventLoop::After(Clock::duration delay, std::function<void()> callback) {
  const TimerId id{Clock::now() + delay, ++next_timer_};
  timers_.emplace(id, std::move(callback));
  return id;
}

void EventLoop::ReapChildren() {
  std::array<signalfd_siginfo, 8> ignored;
  while (read(signals_.get(), ignored.data(), sizeof(ignored)) > 0) {
  }
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid < 0 && errno == EINTR) continue;
    if (pid <= 0) return;
    if (child_exit_) child_exit_(pid, status);
  }
}

void EventLoop::RunTimers() {
  const auto now = Clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const auto callback = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    callback();
  }
}

int EventLoop::SleepMilliseconds() const {
  if (timers_.empty()) return -1;
  const auto wait = timers_.begin()->first.first - Clock::now();
  if (wait <= Clock::duration::zero()) return 0;
  const auto rounded = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
  return static_cast<int>(std::min<std::int64_t>(rounded, 60'000));
}

void EventLoop::Run() {
  running_ = true;
  while (running_) {
    RunTimers();
    if (before_sleep_) before_sleep_();
    std::array<epoll_event, 32> events;
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), SleepMilliseconds());
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events.at(static_cast<std::size_t>(i));
      const auto watch = watches_.find(event.data.fd);
      if (watch == watches_.end()) continue;
      const auto callback = watch->second;
      (*callback)(event.events);
    }
  }
}

void EventLoop::Stop() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_.get(), &one, sizeof(one));
}

}  // namespace husk::agent
