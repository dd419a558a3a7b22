// SPDY/3.1's compressed header blocks.
#ifndef HUSK_CRI_STREAMING_SPDY_HEADERS_H_
#define HUSK_CRI_STREAMING_SPDY_HEADERS_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "agent/common/status.h"
#include "cri/streaming/wire.h"

namespace husk::cri {

inline constexpr std::size_t kMaximumSpdyHeaders = 1000;
inline constexpr std::size_t kMaximumSpdyField = std::size_t{1} << 20;
// Of one whole block, inflated: 1000 fields of 1 MiB would be too much.
inline constexpr std::size_t kMaximumSpdyBlock = std::size_t{4} << 20;

// One direction's zlib stream, shared by all header blocks of a connection. Not thread safe.
class SpdyHeaderReader {
 public:
  SpdyHeaderReader();
  ~SpdyHeaderReader();
  SpdyHeaderReader(const SpdyHeaderReader&) = delete;
  SpdyHeaderReader& operator=(const SpdyHeaderReader&) = delete;

  // INVALID_ARGUMENT if it is damaged, RESOURCE_EXHAUSTED above the limits. Both end the connection, because the zlib
  // stream is lost.
  StatusOr<WireHeaders> Read(std::string_view block);

 private:
  struct Stream;
  StatusOr<std::string> Inflate(std::string_view block);
  const std::unique_ptr<Stream> stream_;
};

class SpdyHeaderWriter {
 public:
  SpdyHeaderWriter();
  ~SpdyHeaderWriter();
  SpdyHeaderWriter(const SpdyHeaderWriter&) = delete;
  SpdyHeaderWriter& operator=(const SpdyHeaderWriter&) = delete;

  // Names in lower case.
  std::string Write(const WireHeaders& headers);

 private:
  struct Stream;
  const std::unique_ptr<Stream> stream_;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_SPDY_HEADERS_H_
