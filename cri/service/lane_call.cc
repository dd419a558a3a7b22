#include "cri/service/lane_call.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::cri {

std::chrono::nanoseconds TimeForCall(std::chrono::nanoseconds client) {
  constexpr std::chrono::nanoseconds kLongestMargin = std::chrono::seconds(10);
  constexpr int kMarginPart = 20;
  return client - std::clamp(client / kMarginPart, std::chrono::nanoseconds(0), kLongestMargin);
}

Context CallContext(const grpc::CallbackServerContext& context, std::stop_token cancelled) {
  static std::atomic<std::uint64_t> next_id = 0;
  const Context background = Context::Background(absl::StrCat("r", ++next_id)).WithStopToken(std::move(cancelled));
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return background;
  // gRPC counts by the wall clock; a step of it must not end our calls.
  return background.WithTimeout(TimeForCall(deadline - std::chrono::system_clock::now()));
}

Status SubmitCall(Lanes* lanes, LaneClass lane_class, const char* method, const Context& context,
                  std::function<void()> run) {
  Status posted = lanes->Submit(lane_class, std::move(run));
  if (!posted.ok()) {
    lanes->observer().OnCall(method, posted.code(), std::chrono::nanoseconds(0));
    spdlog::warn("refused method={} request={}: {}", method, context.request_id(), std::string(posted.message()));
  }
  return posted;
}

Status RunHandler(const Lanes& lanes, const char* method, const Context& context,
                  const std::function<Status(const Context&)>& handler) {
  const auto began = std::chrono::steady_clock::now();
  // It may have waited in the queue for longer than anybody cares.
  Status status = context.Check();
  if (status.ok()) {
    try {
      status = handler(context);
    } catch (const std::exception& error) {
      status = absl::InternalError(absl::StrCat(method, ": ", error.what()));
    }
  }
  const auto duration = std::chrono::steady_clock::now() - began;
  lanes.observer().OnCall(method, status.code(), duration);
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(duration);
  if (status.ok()) {
    spdlog::debug("done method={} request={} ms={}", method, context.request_id(), took.count());
  } else {
    // Asking for what is not there is everyday business of the kubelet.
    spdlog::log(status.code() == absl::StatusCode::kNotFound ? spdlog::level::debug : spdlog::level::warn,
                "failed method={} request={} ms={} code={}: {}", method, context.request_id(), took.count(),
                absl::StatusCodeToString(status.code()), std::string(status.message()));
  }
  return status;
}

}  // namespace husk::cri
