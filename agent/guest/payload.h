// The bytes of a response, in pieces: what was made for it, and what lies somewhere else already.
#ifndef HUSK_AGENT_GUEST_PAYLOAD_H_
#define HUSK_AGENT_GUEST_PAYLOAD_H_

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace husk::agent {

// Under emulation each copy of a byte in the guest is felt, so what containers write goes from the buffer of its stream
// into the channel as it lies there.
class Payload {
 public:
  Payload() = default;
  Payload(const Payload&) = delete;
  Payload& operator=(const Payload&) = delete;
  Payload(Payload&&) = default;
  Payload& operator=(Payload&&) = default;
  // One piece of its own.
  explicit Payload(std::string bytes) { Append(std::move(bytes)); }

  void Append(std::string bytes) {
    if (bytes.empty()) return;
    Borrow(owned_.emplace_back(std::move(bytes)));
  }
  // The caller keeps these bytes as they are for as long as the payload is used.
  void Borrow(std::string_view bytes) {
    if (bytes.empty()) return;
    size_ += bytes.size();
    pieces_.push_back(bytes);
  }

  [[nodiscard]] std::size_t size() const { return size_; }
  // In order; none is empty.
  [[nodiscard]] const std::vector<std::string_view>& pieces() const { return pieces_; }

 private:
  std::deque<std::string> owned_;  // does not move its elements
  std::vector<std::string_view> pieces_;
  std::size_t size_ = 0;
};

// What precedes `length` bytes of a field of a protobuf message (of type bytes, string or message).
std::string FieldHead(int field, std::size_t length);

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_PAYLOAD_H_
