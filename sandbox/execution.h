// A process that is started in a running container, beside its first one.
#ifndef HUSK_SANDBOX_EXECUTION_H_
#define HUSK_SANDBOX_EXECUTION_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/client/agent_client.h"
#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/client_streams.h"
#include "sandbox/drain.h"
#include "sandbox/pod.h"

namespace husk::sandbox {

// The channel into the container's VM. NOT_FOUND if there is no such container, FAILED_PRECONDITION if it does not run.
StatusOr<std::shared_ptr<agent::AgentClient>> ClientOfRunningContainer(Pod& pod, const std::string& container_id);

// From Start to CleanUp. Not thread safe; the ids may be read by any thread.
class Execution {
 public:
  // Gets the output in order. It may wait, and the process waits with it; its error ends Follow.
  using Sink = std::function<Status(OutputKind kind, std::string_view bytes)>;
  struct Options {
    std::vector<std::string> command;
    bool tty = false;
    bool standard_input = false;
  };

  Execution(std::shared_ptr<agent::AgentClient> client, std::string container_id, Sink sink);

  [[nodiscard]] const std::string& container_id() const { return container_id_; }
  [[nodiscard]] const std::string& exec_id() const { return exec_id_; }

  Status Start(const Context& context, const Options& options);
  // Until it has exited and its streams have ended, or have been waited for long enough.
  Status Follow(const Context& context);
  // 255 unless Follow has succeeded.
  [[nodiscard]] std::int32_t exit_code() const { return exit_.value_or(255); }
  // Kills it if it still runs, and makes the guest forget it.
  void CleanUp(const Context& context);

 private:
  struct Stream {
    agent::v1::StreamKind kind;
    OutputKind told_as;
    std::uint64_t offset = 0;
    bool ended = false;
  };

  Status PollOnce(const Context& context);
  [[nodiscard]] agent::v1::PollRequest NextPoll() const;
  // Whether it brought its stream forward.
  StatusOr<bool> Take(const agent::v1::StreamChunk& chunk);
  Status Tell(OutputKind kind, std::string_view bytes);
  bool Exited(const agent::v1::ProcessStatus& process);

  const std::shared_ptr<agent::AgentClient> client_;
  const std::string container_id_;
  const std::string exec_id_;
  const Sink sink_;
  std::array<Stream, 2> streams_{Stream{.kind = agent::v1::STDOUT, .told_as = OutputKind::kStandardOutput},
                                 Stream{.kind = agent::v1::STDERR, .told_as = OutputKind::kStandardError}};
  std::optional<std::int32_t> exit_;
  std::optional<Drain> drain_;  // once it has exited
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_EXECUTION_H_
