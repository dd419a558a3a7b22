#include "agent/common/context.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

namespace husk {

namespace {
struct RequestStop {
  std::stop_source source;
  void operator()() { source.request_stop(); }
};
}  // namespace

// Links form a chain towards the root: a child's source is stopped by its parent's token and by its own extra one.
// The callbacks are declared last so that they are gone before what they touch.
struct Context::State {
  std::string request_id;
  std::shared_ptr<const State> parent;
  std::stop_source source;
  std::optional<std::stop_callback<RequestStop>> from_parent;
  std::optional<std::stop_callback<RequestStop>> from_token;
};

Context Context::Background(std::string_view request_id) {
  auto state = std::make_shared<State>();
  state->request_id = request_id;
  return {std::move(state), Clock::time_point::max()};
}

Context Context::WithTimeout(Clock::duration timeout) const {
  const auto now = Clock::now();
  if (timeout > Clock::time_point::max() - now) return *this;
  return WithDeadline(now + timeout);
}

Context Context::WithDeadline(Clock::time_point deadline) const {
  return {state_, std::min(deadline, deadline_)};
}

Context Context::WithStopToken(std::stop_token token) const {
  auto state = std::make_shared<State>();
  state->request_id = state_->request_id;
  state->parent = state_;
  state->from_parent.emplace(state_->source.get_token(), RequestStop{state->source});
  state->from_token.emplace(std::move(token), RequestStop{state->source});
  return {std::move(state), deadline_};
}

Context Context::Detached(Clock::duration timeout) const {
  return Background(state_->request_id).WithTimeout(timeout);
}

std::stop_token Context::stop_token() const {
  return state_->source.get_token();
}

const std::string& Context::request_id() const {
  return state_->request_id;
}

Context::Clock::duration Context::remaining() const {
  if (deadline_ == Clock::time_point::max()) return Clock::duration::max();
  return std::max(Clock::duration::zero(), deadline_ - Clock::now());
}

int Context::remaining_ms(int limit_ms) const {
  if (deadline_ == Clock::time_point::max()) return limit_ms;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(remaining()).count();
  // poll(2) takes an int; an hour is as good as for ever to a loop that asks again.
  const int capped = static_cast<int>(std::min<std::int64_t>(left, 3'600'000));
  return limit_ms < 0 ? capped : std::min(capped, limit_ms);
}

Status Context::Check() const {
  if (state_->source.stop_requested()) return absl::CancelledError("the operation was cancelled");
  if (deadline_ != Clock::time_point::max() && Clock::now() >= deadline_) {
    return absl::DeadlineExceededError("the operation's deadline passed");
  }
  return absl::OkStatus();
}

void StopFd::Signal::operator()() const {
  const std::uint64_t one = 1;
  // An eventfd takes this write unless its counter overflows, which one write per life cannot do.
  [[maybe_unused]] const auto written = write(fd, &one, sizeof one);
}

StopFd::StopFd(const Context& context)
    : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      callback_(std::make_unique<std::stop_callback<Signal>>(context.stop_token(), Signal{event_.get()})) {}

StopFd::~StopFd() = default;

Status SleepFor(const Context& context, Context::Clock::duration duration) {
  const StopFd stop(context);
  const auto until = Context::Clock::now() + duration;
  const Context limited = context.WithDeadline(until);
  for (;;) {
    HUSK_RETURN_IF_ERROR(context.Check());
    if (Context::Clock::now() >= until) return absl::OkStatus();
    pollfd poll_stop{.fd = stop.get(), .events = POLLIN, .revents = 0};
    poll(&poll_stop, 1, limited.remaining_ms());
  }
}

}  // namespace husk
