// Streaming decompression of a layer: gzip, zstd or none, told apart by the first bytes, whatever the media type says.
#ifndef HUSK_IMAGES_DECOMPRESSOR_H_
#define HUSK_IMAGES_DECOMPRESSOR_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::images {

// Memory is bounded by the output buffer and the format's window (zstd: 128 MiB at most; larger windows are refused).
// Malformed input is DATA_LOSS. Not thread safe.
class Decompressor {
 public:
  // Called with each piece of output, valid during the call. An error ends the Write that caused it.
  using Sink = std::function<Status(std::string_view)>;

  explicit Decompressor(Sink sink);
  ~Decompressor();
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  Status Write(std::string_view input);
  // The input is complete: DATA_LOSS if it ends within a member or frame.
  Status Finish();

  class Codec;

 private:
  Status Start();

  const Sink sink_;
  std::string first_bytes_;  // until there are enough to tell the format
  std::unique_ptr<Codec> codec_;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_DECOMPRESSOR_H_
