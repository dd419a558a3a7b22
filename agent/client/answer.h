// What a guest's frame says, as far as it can be believed.
#ifndef HUSK_AGENT_CLIENT_ANSWER_H_
#define HUSK_AGENT_CLIENT_ANSWER_H_

#include <string>

#include "agent/common/status.h"
#include "agent/common/ttrpc.h"

namespace husk::agent {

struct Answer {
  // The payload, or the error that the guest tells. Its words are made printable and cut to 4096 bytes.
  StatusOr<std::string> outcome;
};

// INVALID_ARGUMENT for what is no response: the connection is at an end then.
StatusOr<Answer> ReadAnswer(const ttrpc::Frame& frame);

// OK if Hello was answered by an agent that speaks huskd's version of the protocol.
Status CheckHello(const Answer& answer);

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_ANSWER_H_
