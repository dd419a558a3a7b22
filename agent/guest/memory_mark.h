// A mark below the end of the guest's memory: containers that reach it are slowed down until there is more. And whether
// there is more than they need.
// docs/adr/0126-memory-on-demand.md
#ifndef HUSK_AGENT_GUEST_MEMORY_MARK_H_
#define HUSK_AGENT_GUEST_MEMORY_MARK_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "agent/common/unique_fd.h"
#include "agent/guest/event_loop.h"

namespace husk::agent {

// Not thread safe.
class MemoryMark {
 public:
  struct Places {
    std::string cgroup = {};   // all containers' (v2)
    std::string meminfo = {};  // /proc/meminfo
  };
  // `on_news` is called when containers have reached the mark and wait, at most twice a second; and when much less than
  // the mark was in use for a while, each time anew. It must not block.
  MemoryMark(EventLoop& loop, Places places, std::function<void()> on_news);
  ~MemoryMark();
  MemoryMark(const MemoryMark&) = delete;
  MemoryMark& operator=(const MemoryMark&) = delete;

  // Sets the mark by the memory that there is now, but for `leaving_bytes` of it, which are about to be taken out; to
  // be called again when there is more. After a shortage for which nobody has done that within ten seconds the mark
  // goes: what would be the end of memory anyway is better met than waited for. A kernel without cgroup v2's
  // memory.high, or that does not measure pressure, has no mark.
  void Set(std::uint64_t leaving_bytes = 0);
  void Remove();

  // How many shortages there have been, and how many times there was too much.
  [[nodiscard]] std::uint64_t shortages() const { return shortages_; }
  [[nodiscard]] std::uint64_t surpluses() const { return surpluses_; }
  // What containers do not use now of what they could, cache aside.
  [[nodiscard]] std::uint64_t SpareBytes() const;
  // Absent: none is set.
  [[nodiscard]] std::optional<std::uint64_t> mark_bytes() const { return mark_; }

 private:
  void Write();
  void WatchPressure();
  void OnPressure();
  void LookForSurplus();

  EventLoop& loop_;
  const Places places_;
  const std::function<void()> on_news_;
  UniqueFd pressure_;
  std::optional<std::uint64_t> mark_;
  std::optional<EventLoop::TimerId> patience_;
  std::optional<EventLoop::TimerId> look_;
  int looks_with_surplus_ = 0;
  std::uint64_t shortages_ = 0;
  std::uint64_t surpluses_ = 0;
};

// What containers have and could have, less a margin for the kernel.
std::uint64_t MarkBytes(const MemoryMark::Places& places);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_MEMORY_MARK_H_
