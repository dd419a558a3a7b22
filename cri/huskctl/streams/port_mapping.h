// What the user writes for one forwarded port.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_PORT_MAPPING_H_
#define HUSK_CRI_HUSKCTL_STREAMS_PORT_MAPPING_H_

#include <cstdint>
#include <string>

#include "agent/common/status.h"

namespace husk::huskctl {

struct PortMapping {
  std::uint16_t local = 0;  // 0: any free one
  std::uint16_t remote = 0;
};

// REMOTE, LOCAL:REMOTE, 0:REMOTE or :REMOTE. INVALID_ARGUMENT names the text.
StatusOr<PortMapping> ParsePortMapping(const std::string& text);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_PORT_MAPPING_H_
