// An agent and its guest in memory, for the unit tests of sandbox/: containers that write, read and exit as scripted,
// and faults where a test wants them.
#ifndef HUSK_AGENT_CLIENT_FAKE_AGENT_H_
#define HUSK_AGENT_CLIENT_FAKE_AGENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/client/agent_client.h"
#include "agent/common/mutex.h"

namespace husk::agent {

// What a process does once it is started.
struct FakeProgram {
  std::string standard_output;  // written at once
  std::string standard_error;
  // Exits with it right after it has written; absent: runs until a signal or FakeGuest::Exit ends it.
  std::optional<std::int32_t> exit_code;
  // Not empty: cannot be started. A container is then EXITED with 128 and StartContainer answers FAILED_PRECONDITION;
  // an exec answers NOT_FOUND.
  std::string start_error;
  std::set<std::uint32_t> ignored_signals;  // SIGKILL ends it whatever stands here
  bool echoes_stdin = false;                // to its standard output; exits with 0 at stdin's end
};

// A program that listens at a port on the guest's loopback. It gives back what it is sent, and closes when its client
// has.
struct FakeListener {
  std::uint64_t room = UINT64_MAX;  // so many bytes it takes of each connection, until FakeGuest::Listen gives it more
  bool silent = false;              // keeps what it is sent
};

// A volume's files by path: their bytes, "/" for a directory, "-> target" for a symlink. The path of a volume that is a
// single file is empty.
using FakeVolume = std::map<std::string, std::string>;

// One VM's inside. Thread safe. It lives as long as its connector and outlives clients, as a VM outlives huskd.
//
// Methods are named as on the wire: "Hello", "CreateContainer", "Poll", ... A process is named by its container's id
// and, for an exec, the exec's id; an empty exec_id is the container's first process.
class FakeGuest {
 public:
  FakeGuest();
  ~FakeGuest();
  FakeGuest(const FakeGuest&) = delete;
  FakeGuest& operator=(const FakeGuest&) = delete;

  // ---- what containers and execs do --------------------------------------------------------------------------------

  // Asked at each StartContainer and Exec, without locks held. Without one: a container runs until it is signalled, an
  // exec exits with 0 at once.
  void SetContainerProgram(std::function<FakeProgram(const v1::ContainerSpec&)> program);
  void SetExecProgram(std::function<FakeProgram(const v1::ExecRequest&)> program);

  // Acts for a running process. False if there is no such process or it does not run.
  bool Write(const std::string& container_id, const std::string& exec_id, v1::StreamKind kind, const std::string& data);
  // `close_streams` false: a grandchild keeps the output open, until CloseStreams.
  bool Exit(const std::string& container_id, const std::string& exec_id, std::int32_t exit_code,
            bool oom_killed = false, bool close_streams = true);
  bool CloseStreams(const std::string& container_id, const std::string& exec_id);

  // From now on somebody listens at the port; with another room, if somebody does already.
  void Listen(std::uint32_t port, FakeListener listener);

  // ---- faults ------------------------------------------------------------------------------------------------------

  // The next `times` calls of the method fail with `status`, without any effect.
  void FailNext(const std::string& method, const Status& status, int times = 1);
  // The next call takes its effect, and fails nevertheless.
  void FailNextAfterEffect(const std::string& method, const Status& status);
  // Calls of the method wait, before any effect, until Release or the end of their context (or of the channel).
  void Block(const std::string& method);
  void Release(const std::string& method);
  // All calls, those in flight too, fail with UNAVAILABLE; what runs in the guest goes on.
  void SetChannelDown(bool down);
  // The guest starts anew: another boot id, no containers, not configured.
  void Reboot();
  // Changes each answer to Poll before the caller sees it: for what a hostile guest would say. Must not call the guest.
  void SetPollFilter(std::function<void(v1::PollResponse&)> filter);
  void SetForwardingFilter(std::function<void(v1::PollForwardingResponse&)> filter);

  // ---- what was asked of it ----------------------------------------------------------------------------------------

  // Every call that reached the guest, in order, without Poll, WriteStdin and those of forwardings.
  [[nodiscard]] std::vector<std::string> calls() const;
  // How many calls of the method have reached the guest so far, those that are blocked or failed included.
  [[nodiscard]] int call_count(const std::string& method) const;
  // Waits until call_count(method) >= count. False if that takes more than half a minute.
  [[nodiscard]] bool WaitForCalls(const std::string& method, int count) const;

  [[nodiscard]] std::optional<v1::SandboxConfig> sandbox_config() const;
  [[nodiscard]] std::vector<std::string> container_ids() const;
  [[nodiscard]] std::optional<v1::ContainerSpec> container_spec(const std::string& container_id) const;
  // Execs that were not removed yet.
  [[nodiscard]] std::vector<std::string> exec_ids(const std::string& container_id) const;
  [[nodiscard]] std::optional<v1::ProcessStatus> process(const std::string& container_id,
                                                         const std::string& exec_id) const;
  // Signals that were sent to it, in order.
  [[nodiscard]] std::vector<std::uint32_t> signals(const std::string& container_id, const std::string& exec_id) const;
  [[nodiscard]] std::string received_stdin(const std::string& container_id, const std::string& exec_id) const;
  // The JSON of the container's last UpdateResources; empty if there was none.
  [[nodiscard]] std::string updated_resources(const std::string& container_id) const;
  // The last ResizeGuest; absent if there was none.
  [[nodiscard]] std::optional<v1::ResizeGuestRequest> resized() const;
  [[nodiscard]] std::vector<std::string> volume_ids() const;
  [[nodiscard]] std::optional<FakeVolume> volume(const std::string& volume_id) const;
  // As a container would.
  void WriteVolume(const std::string& volume_id, const std::string& path, const std::string& bytes);
  // Forwardings that are open.
  [[nodiscard]] std::vector<std::string> forwarding_ids() const;
  // Over all forwardings, those that could not be made included until they are closed.
  [[nodiscard]] std::size_t forwarded_connections() const;
  [[nodiscard]] bool shut_down() const;
  // What Stats answers from now on; nothing at first.
  void SetStats(const v1::StatsResponse& stats);
  // What the guest has to say of its memory from now on: a Poll is answered at once when it has been told less.
  void SetMemoryNews(const v1::MemoryNews& news, std::uint64_t spare_bytes);

 private:
  friend class FakeAgentClient;
  friend class FakeAgentConnector;
  struct State;
  const std::unique_ptr<State> state_;
};

// Makes clients of fake guests: one guest per socket path, made when it is first named. Thread safe. Must outlive its
// clients.
class FakeAgentConnector : public AgentConnector {
 public:
  FakeAgentConnector();
  ~FakeAgentConnector() override;
  std::unique_ptr<AgentClient> Connect(const std::string& socket_path) override;

  FakeGuest& guest(const std::string& socket_path);
  // Of all guests so far, in the paths' order.
  [[nodiscard]] std::vector<std::string> socket_paths() const;
  // Called for each new guest before its first call: where a test that does not know the path yet scripts it.
  void SetGuestSetup(std::function<void(FakeGuest&)> setup);

 private:
  mutable Mutex mutex_;
  std::map<std::string, std::unique_ptr<FakeGuest>> guests_ ABSL_GUARDED_BY(mutex_);
  std::function<void(FakeGuest&)> setup_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_FAKE_AGENT_H_
