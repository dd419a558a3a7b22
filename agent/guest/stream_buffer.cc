#include "agent/guest/stream_buffer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace husk::agent {
namespace {
// What most streams need.
constexpr std::size_t kFirstSize = std::size_t{64} << 10;
constexpr std::size_t kGrowth = 4;
}  // namespace

void StreamBuffer::Grow() {
  const std::size_t larger = ring_size_ == 0 ? kFirstSize : std::min(ring_size_ * kGrowth, kCapacity);
  auto ring = std::make_unique_for_overwrite<char[]>(larger);  // NOLINT(*-avoid-c-arrays)
  std::size_t at = 0;
  for (const std::string_view part : Read(acknowledged_, size_)) {
    if (!part.empty()) std::memcpy(ring.get() + at, part.data(), part.size());
    at += part.size();
  }
  ring_ = std::move(ring);
  ring_size_ = larger;
  start_ = 0;
}

std::span<char> StreamBuffer::Space() {
  if (size_ == ring_size_ && ring_size_ < kCapacity) Grow();
  if (size_ == ring_size_) return {};
  // From an empty ring's start there is the most space in one piece.
  if (size_ == 0) start_ = 0;
  const std::size_t from = (start_ + size_) % ring_size_;
  const std::size_t until = from < start_ ? start_ : ring_size_;
  return {ring_.get() + from, until - from};
}

void StreamBuffer::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::span<char> space = Space();
    if (space.empty()) return;
    const std::size_t count = std::min(space.size(), bytes.size());
    std::memcpy(space.data(), bytes.data(), count);
    Commit(count);
    bytes.remove_prefix(count);
  }
}

void StreamBuffer::Acknowledge(std::uint64_t offset) {
  const std::uint64_t until = std::min(offset, end());
  if (until <= acknowledged_) return;
  const std::size_t count = until - acknowledged_;
  start_ = (start_ + count) % ring_size_;
  size_ -= count;
  acknowledged_ = until;
}

std::array<std::string_view, 2> StreamBuffer::Read(std::uint64_t offset, std::size_t maximum) const {
  const std::uint64_t from = std::max(offset, acknowledged_);
  if (from >= end()) return {};
  const std::size_t skipped = from - acknowledged_;
  const std::size_t count = std::min(size_ - skipped, maximum);
  const std::size_t at = (start_ + skipped) % ring_size_;
  const std::size_t first = std::min(count, ring_size_ - at);
  return {std::string_view(ring_.get() + at, first), std::string_view(ring_.get(), count - first)};
}

void StreamBuffer::Release() {
  if (size_ > 0) return;
  ring_.reset();
  ring_size_ = 0;
  start_ = 0;
}

}  // namespace husk::agent
