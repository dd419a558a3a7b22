// The pod's own things in the guest: network, hostname, sysctls, scratch disk, shared /dev/shm and the files of /etc.
#ifndef HUSK_AGENT_GUEST_SANDBOX_H_
#define HUSK_AGENT_GUEST_SANDBOX_H_

#include <functional>
#include <string>

#include "agent/common/status.h"
#include "agent/guest/event_loop.h"
#include "agent/guest/process.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// What the service needs of the guest that it runs in; a test's double does without.
class Guest {
 public:
  virtual ~Guest() = default;
  virtual void ConfigureSandbox(const v1::SandboxConfig& config, std::function<void(Status)> done) = 0;
  // Does not return in a real guest. Called when the answer to Shutdown has been handed to the host.
  virtual void PowerOff() = 0;
};

// Not thread safe.
class VirtualMachine : public Guest {
 public:
  // `pod_files`: an existing directory for resolv.conf, hosts, hostname and shm; `scratch`: one to mount the disk at.
  VirtualMachine(EventLoop& loop, std::string pod_files, std::string scratch);
  // Waits for the scratch disk without blocking. After a failure it may be called again; after success only with the
  // same content (else FAILED_PRECONDITION).
  void ConfigureSandbox(const v1::SandboxConfig& config, std::function<void(Status)> done) override;
  void PowerOff() override;

 private:
  Status ConfigureAll(const v1::SandboxConfig& config);
  Status WritePodFiles(const v1::SandboxConfig& config);
  Status MountShm(const v1::SandboxConfig& config);
  Status MountScratch(std::uint32_t lun);

  EventLoop& loop_;
  const std::string pod_files_;
  const std::string scratch_;
  std::string configured_;  // the canonical content of the configuration in force or being made
  bool done_ = false;
  bool running_ = false;
  Waiters waiters_;
};

// The contents of the pod's files.
std::string ResolvConf(const v1::SandboxConfig& config);
std::string Hosts(const v1::SandboxConfig& config);
// The file below /proc/sys of a sysctl; INVALID_ARGUMENT for what is not the name of one.
StatusOr<std::string> SysctlPath(const std::string& name);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_SANDBOX_H_
