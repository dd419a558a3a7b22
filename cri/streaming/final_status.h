// What a client is told on its error stream when a command is over.
#ifndef HUSK_CRI_STREAMING_FINAL_STATUS_H_
#define HUSK_CRI_STREAMING_FINAL_STATUS_H_

#include <cstdint>
#include <string>

#include "agent/common/status.h"

namespace husk::cri {

// `outcome`: the command's exit code, or why there is none. As JSON (protocols from the fourth version on) there is
// always something to say; as text only about failures, and empty otherwise.
std::string FinalStatus(const StatusOr<std::int32_t>& outcome, bool json);

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_FINAL_STATUS_H_
