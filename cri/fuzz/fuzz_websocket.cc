// A WebSocket client. The first byte says how its bytes are cut, the second which protocol is spoken; the rest are the
// client's bytes as they are.
#include "cri/fuzz/wire_runs.h"
#include "cri/streaming/websocket_codec.h"

namespace husk::cri::fuzz {
namespace {

void Run(husk::fuzz::Script script) {
  const std::size_t piece = std::size_t{script.Byte()} + 1;
  const std::uint8_t protocol = script.Byte();
  const WebSocketCodec::Options options{.base64 = (protocol & 1) != 0, .half_close = (protocol & 2) != 0};
  const std::string_view bytes = script.Rest();
  WebSocketCodec whole(options);
  WebSocketCodec cut(options);
  husk::fuzz::Require(RunWire(whole, bytes, bytes.size() + 1) == RunWire(cut, bytes, piece),
                      "how the bytes are cut does not matter");
}

}  // namespace
}  // namespace husk::cri::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::cri::fuzz::Run(husk::fuzz::Script(data, size));
  return 0;
}
