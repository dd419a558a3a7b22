// The way into a process's standard input.
#ifndef HUSK_SANDBOX_INPUT_WRITER_H_
#define HUSK_SANDBOX_INPUT_WRITER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "agent/client/agent_client.h"
#include "agent/common/context.h"
#include "agent/common/status.h"

namespace husk::sandbox {

// For one writer at a time. Not thread safe.
class InputWriter {
 public:
  // `exec_id` empty: the container's first process. `offset`: of the first byte that will be written; nothing: the
  // guest is asked. `client` must outlive the writer.
  InputWriter(agent::AgentClient& client, std::string container_id, std::string exec_id,
              std::optional<std::uint64_t> offset)
      : client_(client), container_id_(std::move(container_id)), exec_id_(std::move(exec_id)), offset_(offset) {}

  // Returns when the process, or the pipe to it, has taken all. `end`: nothing follows.
  Status Write(const Context& context, std::string data, bool end);

 private:
  agent::v1::WriteStdinRequest Request() const;

  agent::AgentClient& client_;
  const std::string container_id_;
  const std::string exec_id_;
  std::optional<std::uint64_t> offset_;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_INPUT_WRITER_H_
