// A SPDY client. The first byte says how its bytes are cut; then come steps: frames, with header blocks that are
// deflated here, because no fuzzer finds zlib's own form, and raw bytes.
#include "cri/fuzz/wire_runs.h"
#include "cri/streaming/big_endian.h"
#include "cri/streaming/spdy_codec.h"

namespace husk::cri::fuzz {
namespace {

enum Step : std::uint8_t { kRaw, kSyn, kData, kControl, kHeaders, kSteps };

std::string Frame(std::uint64_t first, std::uint64_t flags, std::string_view payload) {
  std::string frame;
  AppendBigEndian(first, 4, &frame);
  AppendBigEndian(flags, 1, &frame);
  AppendBigEndian(payload.size(), 3, &frame);
  frame.append(payload);
  return frame;
}

std::string Block(husk::fuzz::Script& script, SpdyHeaderWriter& writer) {
  WireHeaders headers;
  for (int count = script.Byte() % 4; count > 0; --count) {
    std::string name(script.Text());
    headers.emplace_back(std::move(name), script.Text());
  }
  return writer.Write(headers);
}

std::string Write(husk::fuzz::Script& script) {
  SpdyHeaderWriter writer;
  std::string bytes;
  while (!script.empty()) {
    const auto step = static_cast<Step>(script.Byte() % kSteps);
    const std::uint64_t id = script.Byte();
    const std::uint64_t flags = script.Byte();
    std::string payload;
    AppendBigEndian(id, 4, &payload);
    switch (step) {
      case kSyn:
        payload.append(6, '\0');
        payload += Block(script, writer);
        bytes += Frame(0x80030001, flags, payload);
        break;
      case kHeaders:
        payload += Block(script, writer);
        bytes += Frame(0x80030008, flags, payload);
        break;
      case kData:
        bytes += Frame(id, flags, script.Text());
        break;
      case kControl:
        payload += script.Text();
        bytes += Frame(0x80030000 | flags, 0, payload);
        break;
      default:
        bytes += script.Text();
        break;
    }
  }
  return bytes;
}

void Run(husk::fuzz::Script script) {
  const std::size_t piece = std::size_t{script.Byte()} + 1;
  const std::string bytes = Write(script);
  SpdyCodec whole;
  SpdyCodec cut;
  husk::fuzz::Require(RunWire(whole, bytes, bytes.size() + 1) == RunWire(cut, bytes, piece),
                      "how the bytes are cut does not matter");
}

}  // namespace
}  // namespace husk::cri::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::cri::fuzz::Run(husk::fuzz::Script(data, size));
  return 0;
}
