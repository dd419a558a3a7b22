// Reading the head of a client's HTTP request.
#ifndef HUSK_CRI_STREAMING_HTTP_HEAD_H_
#define HUSK_CRI_STREAMING_HTTP_HEAD_H_

#include <cstddef>
#include <optional>
#include <string>

#include "agent/common/status.h"
#include "cri/streaming/upgrade.h"

namespace husk::cri {

inline constexpr std::size_t kMaximumHttpHead = std::size_t{16} << 10;

// Takes a whole head from the front of `bytes`, and leaves what came after it, which belongs to the streams. Nothing if
// it is not whole yet. INVALID_ARGUMENT if it is no HTTP/1.1, RESOURCE_EXHAUSTED if it is longer than kMaximumHttpHead.
StatusOr<std::optional<HttpHead>> TakeHttpHead(std::string* bytes);

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_HTTP_HEAD_H_
