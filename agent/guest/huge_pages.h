// The guest's huge pages: how many its kernel keeps, and for which containers.
#ifndef HUSK_AGENT_GUEST_HUGE_PAGES_H_
#define HUSK_AGENT_GUEST_HUGE_PAGES_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "agent/common/status.h"

namespace husk::agent {

// By the page's size in the kernel's words, such as "2MB".
using HugePageBytes = std::map<std::string, std::uint64_t>;

// Not thread safe. Calls block for as long as the kernel takes to find the pages.
class HugePages {
 public:
  struct Places {
    std::string pools = {};    // with a directory for each size: /sys/kernel/mm/hugepages
    std::string compact = {};  // a write to it moves used pages together: /proc/sys/vm/compact_memory
  };
  explicit HugePages(Places places);

  // What this kernel has, smallest first.
  [[nodiscard]] std::vector<std::string> Sizes() const;

  // From now on the kernel keeps this for the container, in place of what it kept for it before and beside what it
  // keeps for others. RESOURCE_EXHAUSTED if it finds fewer pages, INVALID_ARGUMENT if it has none of that size; both by
  // the size, and all stays as it was.
  Status Reserve(const std::string& container_id, const HugePageBytes& bytes);
  // Nothing is kept for it any more. Pages that are in use still go when they are let go of.
  void Release(const std::string& container_id);

 private:
  struct Pool {
    std::string size;
    std::uint64_t page_bytes = 0;
    std::string count;  // the file
  };
  using Reservations = std::map<std::string, HugePageBytes>;  // by container

  [[nodiscard]] const Pool* Find(const std::string& size) const;
  static std::uint64_t PagesIn(const Pool& pool, const Reservations& reservations);
  Status Fill(const Pool& pool, std::uint64_t pages) const;

  const Places places_;
  std::vector<Pool> pools_;  // smallest first
  Reservations reservations_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_HUGE_PAGES_H_
