// From what a guest says of itself to what can be true: everything in an answer may be a lie, and changes nothing but
// its own pod's figures.
#ifndef HUSK_SANDBOX_STATS_HISTORY_H_
#define HUSK_SANDBOX_STATS_HISTORY_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "agent/client/agent_client.h"
#include "sandbox/host/cgroup.h"
#include "sandbox/stats.h"

namespace husk::sandbox {

// One answer of the guest, and what the host saw at the same time.
struct StatsSample {
  agent::v1::StatsResponse guest;
  HostUsage host;
  std::int64_t timestamp = 0;  // nanoseconds since 1970 by the host's clock
};

// What no honest guest can go beyond.
struct StatsBounds {
  std::int64_t created_at = 0;  // the pod, nanoseconds since 1970
  std::uint32_t vcpus = 1;      // at most, ever
  std::uint64_t memory_bytes = 0;
  std::uint64_t scratch_bytes = 0;
  std::set<std::string> containers;  // others are not listened to
};

// Nanoseconds of processors a second. A sample less than a second after the last one that counted changes nothing.
class CpuRate {
 public:
  std::optional<std::uint64_t> Add(std::int64_t timestamp, const std::optional<std::uint64_t>& usage_nanoseconds);

 private:
  std::int64_t timestamp_ = 0;
  std::optional<std::uint64_t> usage_;
  std::optional<std::uint64_t> rate_;
};

// One pod's figures. Not thread safe.
//
// Counters: what runs backwards stays where it was. Processor time beyond what the VM's processors can have spent since
// the pod was made is what the host's cgroup of the VM says, or is left out where that does not tell. Bytes beyond what
// the VM has, and numbers of nothing (2^64-1), are left out.
class StatsHistory {
 public:
  void Add(const StatsSample& sample, const StatsBounds& bounds);
  // As of the last sample.
  [[nodiscard]] const PodFigures& figures() const { return figures_; }

 private:
  void AddContainers(const StatsSample& sample, const StatsBounds& bounds);
  void AddVolumes(const StatsSample& sample, const StatsBounds& bounds);
  void AddInterfaces(const agent::v1::GuestStats& guest);
  void AddPod(const StatsSample& sample, const StatsBounds& bounds);

  PodFigures figures_;
  std::map<std::string, CpuRate> rates_;  // by container; empty: the pod's own
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_STATS_HISTORY_H_
