// The bytes of one output stream that huskd has not acknowledged yet.
#ifndef HUSK_AGENT_GUEST_STREAM_BUFFER_H_
#define HUSK_AGENT_GUEST_STREAM_BUFFER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace husk::agent {

// A window on a stream: bytes [acknowledged(), end()), at most kCapacity of them, in a ring that grows to that size
// when it is needed. Not thread safe.
class StreamBuffer {
 public:
  // What huskd writes into a log, what is on its way to it and what comes in meanwhile have room beside each other.
  static constexpr std::size_t kCapacity = std::size_t{1} << 20;

  // Bytes that may be appended now; 0: the writer has to wait.
  [[nodiscard]] std::size_t room() const { return kCapacity - size_; }
  // The first byte that is kept, and the one after the last.
  [[nodiscard]] std::uint64_t acknowledged() const { return acknowledged_; }
  [[nodiscard]] std::uint64_t end() const { return acknowledged_ + size_; }
  // Of its memory.
  [[nodiscard]] std::size_t allocated() const { return ring_size_; }

  // Where the next bytes can be put; empty if there is no room(). It may be less than that.
  std::span<char> Space();
  // That many bytes were put there.
  void Commit(std::size_t count) { size_ += count; }
  // The same by a copy; at most room() bytes.
  void Append(std::string_view bytes);

  // Forgets the bytes before `offset`, which counts as end() if it is larger. Going back does nothing.
  void Acknowledge(std::uint64_t offset);
  // At most `maximum` bytes from `offset`, or from acknowledged() if those at `offset` are gone: the second part
  // follows the first. Empty if there are none yet. Valid until the next change.
  [[nodiscard]] std::array<std::string_view, 2> Read(std::uint64_t offset, std::size_t maximum) const;
  // Gives the memory back if no bytes are kept.
  void Release();

 private:
  void Grow();

  std::unique_ptr<char[]> ring_;  // NOLINT(*-avoid-c-arrays): its bytes need no value before they are written
  std::size_t ring_size_ = 0;
  std::size_t start_ = 0;  // of the kept bytes, in the ring
  std::size_t size_ = 0;
  std::uint64_t acknowledged_ = 0;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_STREAM_BUFFER_H_
