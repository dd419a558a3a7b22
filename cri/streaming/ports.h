// The numbers of ports as clients write them.
#ifndef HUSK_CRI_STREAMING_PORTS_H_
#define HUSK_CRI_STREAMING_PORTS_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "agent/common/status.h"

namespace husk::cri {

// 1 to 65535 in decimal digits and nothing else. INVALID_ARGUMENT, beginning with "port: ".
StatusOr<std::uint16_t> ParsePort(std::string_view text);

// Those of a request's target: "?port=80&port=81", also "ports", and several with commas between. In order, with
// repetitions; other parameters say nothing here.
StatusOr<std::vector<std::uint16_t>> PortsOfQuery(std::string_view target);

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_PORTS_H_
