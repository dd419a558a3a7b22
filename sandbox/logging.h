// What log lines need besides spdlog. Fields come first, as name=value: pod=... container=....
#ifndef HUSK_SANDBOX_LOGGING_H_
#define HUSK_SANDBOX_LOGGING_H_

#include <spdlog/spdlog.h>

#include <string_view>

#include "agent/common/status.h"

namespace husk::sandbox {

// A status' message in a form that spdlog knows. Lives as long as the status.
inline std::string_view Words(const Status& status) {
  return {status.message().data(), status.message().size()};
}

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_LOGGING_H_
