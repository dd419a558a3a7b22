#include "agent/guest/stream_buffer.h"

#include <algorithm>

namespace husk::agent {

void StreamBuffer::Append(std::string_view bytes) {
  // Moving the rest to the front only when half is consumed keeps the cost per byte constant.
  if (consumed_ >= kCapacity / 2 || consumed_ == bytes_.size()) {
    bytes_.erase(0, consumed_);
    consumed_ = 0;
  }
  bytes_.append(bytes.substr(0, room()));
}

void StreamBuffer::Acknowledge(std::uint64_t offset) {
  const std::uint64_t until = std::min(offset, end());
  if (until <= acknowledged_) return;
  consumed_ += until - acknowledged_;
  acknowledged_ = until;
  if (consumed_ == bytes_.size()) {
    // An idle stream holds no memory.
    std::string().swap(bytes_);
    consumed_ = 0;
  }
}

std::string_view StreamBuffer::Read(std::uint64_t offset, std::size_t maximum) const {
  const std::uint64_t from = std::max(offset, acknowledged_);
  if (from >= end()) return {};
  return std::string_view(bytes_).substr(consumed_ + (from - acknowledged_), maximum);
}

}  // namespace husk::agent
