// What pods and containers use, in Husk's own words.
#ifndef HUSK_SANDBOX_STATS_H_
#define HUSK_SANDBOX_STATS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/types.h"

namespace husk::sandbox {

// What is not known, or cannot be true, is absent. Times are nanoseconds since 1970 by the host's clock. Counters never
// run backwards while the pod lives.

struct PressureShare {
  double average10 = 0;  // percent of the last ten seconds
  double average60 = 0;
  double average300 = 0;
  std::uint64_t total_nanoseconds = 0;
};

struct Pressure {
  PressureShare some;
  PressureShare full;
};

struct CpuFigures {
  std::optional<std::uint64_t> usage_nanoseconds;
  std::optional<std::uint64_t> user_nanoseconds;
  std::optional<std::uint64_t> system_nanoseconds;
  // Nanoseconds of processors a second, between the last two samples that are a second apart or more.
  std::optional<std::uint64_t> usage_nano_cores;
  std::optional<std::uint64_t> periods;
  std::optional<std::uint64_t> throttled_periods;
  std::optional<std::uint64_t> throttled_nanoseconds;
  std::optional<Pressure> pressure;
};

struct MemoryFigures {
  std::optional<std::uint64_t> usage_bytes;
  std::optional<std::uint64_t> working_set_bytes;  // usage without files that could be dropped at once
  std::optional<std::uint64_t> resident_bytes;     // anonymous
  std::optional<std::uint64_t> cache_bytes;
  std::optional<std::uint64_t> mapped_file_bytes;
  std::optional<std::uint64_t> kernel_bytes;
  std::optional<std::uint64_t> peak_bytes;
  std::optional<std::uint64_t> swap_bytes;
  std::optional<std::uint64_t> swap_limit_bytes;
  std::optional<std::uint64_t> page_faults;  // the major ones included
  std::optional<std::uint64_t> major_page_faults;
  std::optional<std::uint64_t> limit_failures;
  std::optional<std::uint64_t> out_of_memory_kills;
  std::optional<Pressure> pressure;
};

struct IoFigures {
  std::optional<std::uint64_t> read_bytes;
  std::optional<std::uint64_t> written_bytes;
  std::optional<std::uint64_t> reads;
  std::optional<std::uint64_t> writes;
  std::optional<Pressure> pressure;
};

struct FileFigures {
  std::int64_t timestamp = 0;  // when the guest looked
  std::uint64_t used_bytes = 0;
  std::uint64_t inodes = 0;
};

struct InterfaceFigures {
  std::string name;
  std::uint64_t received_bytes = 0;
  std::uint64_t received_packets = 0;
  std::uint64_t receive_errors = 0;
  std::uint64_t receive_drops = 0;
  std::uint64_t sent_bytes = 0;
  std::uint64_t sent_packets = 0;
  std::uint64_t send_errors = 0;
  std::uint64_t send_drops = 0;
};

struct CgroupFigures {
  CpuFigures cpu;
  MemoryFigures memory;
  IoFigures io;
  std::optional<std::uint64_t> processes;
  std::optional<std::uint64_t> threads;
};

struct ContainerFigures {
  CgroupFigures cgroup;
  std::optional<FileFigures> writable_layer;
};

struct PodFigures {
  std::int64_t timestamp = 0;  // when the guest's answer came; 0: it has never answered
  // CPU and memory are the VM's on the host where that is known (docs/adr/0090), the rest is its containers' together.
  CgroupFigures cgroup;
  std::vector<InterfaceFigures> interfaces;            // by the guest's names
  std::map<std::string, ContainerFigures> containers;  // by id
  std::map<std::string, FileFigures> volumes;          // those in the guest, by id
  std::optional<std::uint64_t> scratch_capacity_bytes;
  std::optional<std::uint64_t> guest_memory_used_bytes;  // by all of the guest, as its kernel sees it
};

// How large a pod's VM is. Known without asking anybody, but for `used_memory_bytes`, which is as the guest said last.
struct VmFigures {
  std::uint64_t memory_bytes = 0;            // that it has
  std::uint64_t requested_memory_bytes = 0;  // that its guest was told to have
  std::uint64_t wanted_memory_bytes = 0;     // that it shall have for its containers
  std::optional<std::uint64_t> used_memory_bytes;
  std::uint32_t vcpus = 0;         // that are plugged in
  std::uint32_t online_vcpus = 0;  // that its guest was brought to use; 0: in doubt
  std::uint32_t wanted_vcpus = 0;
  bool resizing = false;  // a resize is under way, or owed
};

// `timestamp` 0 and everything else absent: nothing is known yet. Of a container that has exited the processor time and
// the files stay, the rest is absent; of one that has not been started, or whose pod is gone, only what is known.
struct ContainerStats {
  ContainerStatus status;
  std::int64_t timestamp = 0;
  ContainerFigures figures;
};

struct PodStats {
  PodStatus status;
  PodFigures figures;                      // without `containers`
  std::string default_interface;           // its name; empty if there is none
  std::vector<ContainerStats> containers;  // those that run
  std::optional<VmFigures> vm;             // absent without one
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_STATS_H_
