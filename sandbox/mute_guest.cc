#include "sandbox/mute_guest.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "sandbox/id.h"
#include "sandbox/logging.h"
#include "sandbox/pod_operations.h"

namespace husk::sandbox {
namespace {

// A guest that lives says Hello at once; together with the kill this fits between a call's end and its client's.
constexpr auto kHelloWait = std::chrono::seconds(3);
constexpr auto kKillWait = std::chrono::seconds(3);

// On a busy host a guest may be slow with one call and answer others, such as those for its figures.
bool WasHeard(const Pod& pod, Context::Clock::duration ago) {
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(ago).count();
  return pod.meter().figures().timestamp > NowNanoseconds() - nanoseconds;
}

bool IsMute(const Context& context, Pod& pod) {
  const auto client = pod.client();
  if (client == nullptr || pod.ended()) return false;
  const auto hello = client->Hello(pod.Interruptible(context.Detached(kHelloWait)));
  return absl::IsDeadlineExceeded(hello.status());
}

}  // namespace

bool EndVmOfMuteGuest(Environment& environment, const Context& context, Pod& pod, const std::string& container_id,
                      Context::Clock::time_point asked_at) {
  const auto waited = Context::Clock::now() - asked_at;
  if (waited < environment.options.mute_guest_limit || WasHeard(pod, waited) || !IsMute(context, pod)) return false;
  const auto vm = pod.vm();
  if (vm == nullptr) return false;
  // First the words: the end of QEMU alone would only tell that it was killed.
  PodVmEnded(
      environment, pod,
      absl::StrCat("its guest has not answered for ", std::chrono::duration_cast<std::chrono::seconds>(waited).count(),
                   " s while container ", container_id.substr(0, 12), " was to be stopped"));
  const Status killed = vm->Kill(context.Detached(kKillWait));
  // The pod is NOTREADY: the kubelet will have it stopped, which kills the VM again.
  if (!killed.ok()) spdlog::error("pod={} kill the VM of a mute guest: {}", pod.id(), Words(killed));
  return true;
}

}  // namespace husk::sandbox
