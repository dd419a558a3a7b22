// The answer to Stats: what the guest's containers, volumes and interfaces use.
#ifndef HUSK_AGENT_GUEST_STATS_H_
#define HUSK_AGENT_GUEST_STATS_H_

#include <functional>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "agent/guest/container_roots.h"
#include "agent/guest/containers.h"
#include "agent/guest/file_usage.h"
#include "agent/guest/guest_size.h"
#include "agent/guest/volumes.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// Not thread safe; those borrowed outlive it. Reading cgroups blocks for moments, files are measured in the background.
class Stats {
 public:
  struct Parts {
    const Containers* containers;
    const ContainerRoots* roots;
    const Volumes* volumes;
    const GuestSize* size;
    std::string cgroup_root;                   // where cgroup v2 is mounted
    std::string scratch;                       // where the scratch disk is mounted, when it is
    std::vector<std::string> measure_command;  // FileUsageMeter's
  };
  Stats(EventLoop& loop, Children& children, Parts parts);

  // `done` may be called before the call returns, and at the latest half a second after it.
  void Answer(std::function<void(StatusOr<v1::StatsResponse>)> done);

 private:
  [[nodiscard]] v1::StatsResponse Collect() const;
  void AddGuest(v1::GuestStats& guest) const;

  const Parts parts_;
  FileUsageMeter meter_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_STATS_H_
