// Kubernetes' quantities: "500m", "1.5", "256Mi".
#ifndef HUSK_CRI_HUSKCTL_QUANTITY_H_
#define HUSK_CRI_HUSKCTL_QUANTITY_H_

#include <cstdint>
#include <string>

#include "agent/common/status.h"

namespace husk::huskctl {

// In thousandths, rounded up: CPUs of "500m" are 500. INVALID_ARGUMENT names the text.
StatusOr<std::int64_t> ParseMilli(const std::string& text);
// Whole units, rounded up: bytes of "1Ki" are 1024.
StatusOr<std::int64_t> ParseUnits(const std::string& text);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_QUANTITY_H_
