// The agent's API on a channel: decodes requests, calls the guest, encodes answers.
#ifndef HUSK_AGENT_GUEST_SERVICE_H_
#define HUSK_AGENT_GUEST_SERVICE_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "agent/guest/channel.h"
#include "agent/guest/containers.h"
#include "agent/guest/forwardings.h"
#include "agent/guest/guest_size.h"
#include "agent/guest/memory_mark.h"
#include "agent/guest/poller.h"
#include "agent/guest/sandbox.h"
#include "agent/guest/stats.h"
#include "agent/guest/volumes.h"

namespace husk::agent {

// Owns what a connection needs; containers and guest outlive it. Not thread safe.
class Service {
 public:
  struct Parts {
    ContainerRoots* roots;
    Guest* guest;
    Volumes* volumes;
    std::string crun;
    std::string crun_state;
    Containers::Places places;
    GuestSize::Places size = {};
    MemoryMark::Places memory = {};
    std::string scratch;                       // where the scratch disk is mounted, when it is
    std::vector<std::string> measure_command;  // FileUsageMeter's
  };
  // `port`: non-blocking.
  Service(EventLoop& loop, Children& children, UniqueFd port, const Parts& parts);

  Status Start();

 private:
  using Method = std::function<void(const std::string& payload, const Channel::Answer& answer)>;
  // Registers a method whose request is Request; `call` gets it and a Containers::Done<Response>.
  template <typename Request, typename Response, typename Call>
  void Register(const std::string& name, Call call);
  void RegisterAll();
  void RegisterContainerMethods();
  void RegisterProcessMethods();
  void RegisterVolumeMethods();
  void RegisterForwardingMethods();
  void Handle(const std::string& method, const std::string& payload, const Channel::Answer& answer);
  void PowerOffWhenAnswered(int checks_left);

  EventLoop& loop_;
  Guest& guest_;
  Volumes& volumes_;
  MemoryMark memory_mark_;
  GuestSize size_;
  Poller poller_;
  Crun crun_;
  Containers containers_;
  Stats stats_;
  Forwardings forwardings_;
  Channel channel_;
  std::map<std::string, Method> methods_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_SERVICE_H_
