// What a client types, on its way to a process in the guest.
#ifndef HUSK_SANDBOX_INPUT_PUMP_H_
#define HUSK_SANDBOX_INPUT_PUMP_H_

#include <functional>
#include <stop_token>
#include <string>
#include <thread>

#include "agent/client/agent_client.h"
#include "agent/common/context.h"
#include "agent/common/status.h"
#include "sandbox/client_streams.h"

namespace husk::sandbox {

// Carries a client's input, and the sizes of its terminal, to a process, on threads of its own, until it goes. A
// process that reads slowly makes the client wait; one that reads no more does not.
class InputPump {
 public:
  struct Target {
    std::string container_id;
    std::string exec_id;  // empty: the container's first process
    // Called with each piece, and with nothing at the end of the input; its error ends the input. Null: none is taken.
    std::function<Status(const Context& context, std::string bytes)> write;
    bool sizes = false;  // it has a terminal
  };
  // What is borrowed must outlive the pump.
  InputPump(const Context& context, agent::AgentClient& client, Target target, ClientStreams& streams);
  InputPump(const InputPump&) = delete;
  InputPump& operator=(const InputPump&) = delete;
  // Does not wait for the client.
  ~InputPump();

 private:
  Status PumpInput();
  void PumpSizes();

  std::stop_source stop_;
  const Context context_;
  agent::AgentClient& client_;
  const Target target_;
  ClientStreams& streams_;
  std::thread input_thread_;
  std::thread sizes_thread_;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_INPUT_PUMP_H_
