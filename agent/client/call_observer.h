// Round trips to agents, for whoever keeps figures of them.
#ifndef HUSK_AGENT_CLIENT_CALL_OBSERVER_H_
#define HUSK_AGENT_CLIENT_CALL_OBSERVER_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string_view>

#include "agent/client/agent_client.h"
#include "agent/common/status.h"

namespace husk::agent {

// Called by the thread that made the call, several at once: it returns at once. `method` is the agent's name of it.
using CallObserver = std::function<void(std::string_view method, std::chrono::nanoseconds took, const Status& status)>;

// NewTtrpcConnector, with an observer of every call that was answered or given up.
std::unique_ptr<AgentConnector> NewObservedTtrpcConnector(CallObserver observer);

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_CALL_OBSERVER_H_
