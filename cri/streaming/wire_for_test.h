// What the tests of the two wires share.
#ifndef HUSK_CRI_STREAMING_WIRE_FOR_TEST_H_
#define HUSK_CRI_STREAMING_WIRE_FOR_TEST_H_

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "cri/streaming/wire.h"

namespace husk::cri {

// One word per event: "open 1", "data 1 bytes", "end 1", "reset 1", "closing". Neighbouring data of a stream is joined,
// as its pieces depend on how the bytes were cut.
inline std::vector<std::string> Words(const std::vector<WireEvent>& events) {
  std::vector<std::string> words;
  WireStream last_data = 0;
  bool after_data = false;
  for (const WireEvent& event : events) {
    const std::string id = std::to_string(event.stream);
    const bool data = event.kind == WireEvent::Kind::kData;
    if (data && after_data && last_data == event.stream) {
      words.back() += event.data;
      continue;
    }
    after_data = data;
    last_data = event.stream;
    switch (event.kind) {
      case WireEvent::Kind::kOpened:
        words.push_back("open " + id);
        break;
      case WireEvent::Kind::kData:
        words.push_back("data " + id + " " + event.data);
        break;
      case WireEvent::Kind::kEnded:
        words.push_back("end " + id);
        break;
      case WireEvent::Kind::kReset:
        words.push_back("reset " + id);
        break;
      case WireEvent::Kind::kClosing:
        words.emplace_back("closing");
        break;
    }
  }
  return words;
}

// In pieces of `size` bytes.
inline Status ReceiveInPieces(Wire& wire, std::string_view bytes, std::size_t size, std::vector<WireEvent>* events) {
  for (; !bytes.empty(); bytes.remove_prefix(std::min(size, bytes.size()))) {
    HUSK_RETURN_IF_ERROR(wire.Receive(bytes.substr(0, size), events));
  }
  return absl::OkStatus();
}

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_WIRE_FOR_TEST_H_
