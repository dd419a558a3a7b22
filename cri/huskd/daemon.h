// The composition root: makes every part, connects them, serves, and takes them down again.
#ifndef HUSK_CRI_HUSKD_DAEMON_H_
#define HUSK_CRI_HUSKD_DAEMON_H_

#include <stop_token>

#include "agent/common/status.h"
#include "cri/config/config.h"

namespace husk::cri {

// Serves until `stop` fires, then lets go of the pods, which go on running. `config` is checked and complete. Errors
// are those of the start, with their remedy.
Status RunDaemon(const Config& config, const std::stop_token& stop);

}  // namespace husk::cri

#endif  // HUSK_CRI_HUSKD_DAEMON_H_
