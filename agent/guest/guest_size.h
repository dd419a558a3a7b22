// What of the VM's hardware the guest's kernel uses: CPUs, and memory that was plugged in.
#ifndef HUSK_AGENT_GUEST_GUEST_SIZE_H_
#define HUSK_AGENT_GUEST_GUEST_SIZE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "agent/common/status.h"
#include "agent/guest/event_loop.h"
#include "agent/guest/memory_mark.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// Not thread safe. Each CPU that comes or goes blocks for as long as the kernel takes for it.
class GuestSize {
 public:
  struct Places {
    std::string cpus = {};           // /sys/devices/system/cpu
    std::string online_policy = {};  // of memory: /sys/module/memory_hotplug/parameters/online_policy
  };
  // `mark` outlives it.
  GuestSize(EventLoop& loop, Places places, MemoryMark& mark);

  // ResizeGuest of agent.proto. `done` may be called before it returns.
  void Resize(const v1::ResizeGuestRequest& request, std::function<void(StatusOr<v1::ResizeGuestResponse>)> done);
  [[nodiscard]] std::uint32_t OnlineCpus() const;

 private:
  // Once. RESOURCE_EXHAUSTED if some are not there (yet).
  [[nodiscard]] Status BringCpusTo(std::uint32_t count) const;
  [[nodiscard]] bool Online(const std::string& cpu) const;

  EventLoop& loop_;
  const Places places_;
  MemoryMark& mark_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_GUEST_SIZE_H_
