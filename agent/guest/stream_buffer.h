// The bytes of one output stream that huskd has not acknowledged yet.
#ifndef HUSK_AGENT_GUEST_STREAM_BUFFER_H_
#define HUSK_AGENT_GUEST_STREAM_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace husk::agent {

// A window on a stream: bytes [acknowledged(), end()) at most kCapacity of them. Not thread safe.
class StreamBuffer {
 public:
  static constexpr std::size_t kCapacity = std::size_t{256} << 10;

  // Bytes that may be appended now; 0: the writer has to wait.
  [[nodiscard]] std::size_t room() const { return kCapacity - (bytes_.size() - consumed_); }
  // The first byte that is kept, and the one after the last.
  [[nodiscard]] std::uint64_t acknowledged() const { return acknowledged_; }
  [[nodiscard]] std::uint64_t end() const { return acknowledged_ + (bytes_.size() - consumed_); }

  // At most room() bytes.
  void Append(std::string_view bytes);
  // Forgets the bytes before `offset`, which counts as end() if it is larger. Going back does nothing.
  void Acknowledge(std::uint64_t offset);
  // At most `maximum` bytes from `offset`, or from acknowledged() if those at `offset` are gone. Empty if there are
  // none yet. Valid until the next change.
  [[nodiscard]] std::string_view Read(std::uint64_t offset, std::size_t maximum) const;

 private:
  std::string bytes_;
  std::size_t consumed_ = 0;  // of bytes_, acknowledged but not erased yet
  std::uint64_t acknowledged_ = 0;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_STREAM_BUFFER_H_
