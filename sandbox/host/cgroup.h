// The pod's cgroup on the host, in which its QEMU runs. cgroup v1 (every mounted controller) and v2.
#ifndef HUSK_SANDBOX_HOST_CGROUP_H_
#define HUSK_SANDBOX_HOST_CGROUP_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"

namespace husk::sandbox {

// 0: none, or the kernel's default.
struct HostLimits {
  std::uint64_t memory_bytes = 0;
  std::uint64_t cpu_shares = 0;  // 2 to 262144, in v1's terms
  std::int64_t cpu_quota = 0;    // microseconds of each period; less than 0: none
  std::uint64_t cpu_period = 0;  // microseconds
};

// What the processes of a cgroup have used so far, or use now. Absent: the kernel does not tell.
struct HostUsage {
  std::optional<std::uint64_t> cpu_nanoseconds;
  std::optional<std::uint64_t> memory_bytes;
  std::optional<std::uint64_t> inactive_file_bytes;  // of memory_bytes
  std::optional<std::uint64_t> anonymous_bytes;      // of memory_bytes
  std::optional<std::uint64_t> page_faults;
  std::optional<std::uint64_t> major_page_faults;
};

struct MemoryCeiling {
  std::string directory;  // of the cgroup whose limit it is
  std::uint64_t bytes = 0;
};

// Thread safe; keeps nothing in memory: everything follows from the two names.
class HostCgroups {
 public:
  virtual ~HostCgroups() = default;

  // Makes <parent>/husk-<pod_id> in every hierarchy, and the parents that are missing; the "cgroup.procs" files that a
  // process must be written to. `parent` is a cgroupfs path ("/kubepods/burstable/pod1") or a systemd slice
  // ("kubepods-burstable-pod1.slice", expanded as systemd does). "..": INVALID_ARGUMENT.
  virtual StatusOr<std::vector<std::string>> Create(const std::string& parent, const std::string& pod_id) = 0;
  // Of what Create made. A controller that is not there is passed over; of several failures the first is told, and the
  // rest is set nevertheless. A quota of CPU beyond that of a cgroup above, which v1 refuses, leaves the one above to
  // count.
  virtual Status SetLimits(const std::string& parent, const std::string& pod_id, const HostLimits& limits) = 0;
  // How many processes in it the kernel has killed for lack of memory; 0 if it is not there.
  [[nodiscard]] virtual std::uint64_t OomKills(const std::string& parent, const std::string& pod_id) = 0;
  // The least limit of memory among `parent` and those it lies in; absent: none of them has one.
  [[nodiscard]] virtual std::optional<MemoryCeiling> LeastMemoryAbove(const std::string& parent) = 0;
  // Empty if it is not there.
  [[nodiscard]] virtual HostUsage Usage(const std::string& parent, const std::string& pod_id) = 0;
  // Removes what Create made: the pod's directory, and the default parent when it is empty, never a parent that the
  // caller named. Waits within the context while a dying process still holds it. OK if it is not there.
  virtual Status Remove(const Context& context, const std::string& parent, const std::string& pod_id) = 0;
};

// `default_parent` is used where parent is empty, and gets the CPU weight of all the node's processors. `mount_table`:
// normally /proc/self/mountinfo; tests name their own.
std::unique_ptr<HostCgroups> NewHostCgroups(const std::string& default_parent,
                                            const std::string& mount_table = "/proc/self/mountinfo");

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_HOST_CGROUP_H_
