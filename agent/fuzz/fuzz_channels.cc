// huskd's end of the channel: what a hostile guest may write, from the first byte of a connection on. The first byte
// says how reads cut it, the second how often huskd opens before the guest is heard.
#include <sys/random.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/client/answer.h"
#include "agent/client/opening.h"
#include "agent/common/fuzz_require.h"
#include "agent/common/ttrpc.h"
#include "agent/proto/channel.h"

// An opening's nonce must follow from the input alone.
// NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name)
extern "C" ssize_t getrandom(void* buffer, std::size_t size, unsigned int /*flags*/) {
  static unsigned char next = 1;
  auto* const bytes = static_cast<unsigned char*>(buffer);
  std::fill_n(bytes, size, next);
  next = next == 0x1f ? 1 : next + 1;
  return static_cast<ssize_t>(size);
}

namespace husk::agent {
namespace {

constexpr std::size_t kMaximumBytes = std::size_t{256} << 10;

enum Step : std::uint8_t { kEcho, kOldEcho, kRaw, kFrame, kResponse, kMarkerPiece, kSteps };

// The guest's bytes.
std::string Write(fuzz::Script& script, const std::vector<std::string>& nonces) {
  std::string bytes;
  while (!script.empty() && bytes.size() < kMaximumBytes) {
    switch (static_cast<Step>(script.Byte() % kSteps)) {
      case kEcho:
        bytes += std::string(kChannelMarker) + nonces.back();
        break;
      case kOldEcho:
        bytes += std::string(kChannelMarker) + nonces[script.Byte() % nonces.size()];
        break;
      case kRaw:
        bytes += script.Text();
        break;
      case kFrame: {
        std::string header(script.Bytes(ttrpc::kHeaderSize));
        header.resize(ttrpc::kHeaderSize);
        bytes += header;
        bytes += script.Text();
        break;
      }
      case kResponse:
        bytes += ttrpc::Encode(
            {.stream_id = script.Byte(), .type = ttrpc::MessageType::kResponse, .payload = std::string(script.Text())});
        break;
      default:
        bytes += kChannelMarker.substr(0, script.Byte() % kChannelMarker.size());
        break;
    }
  }
  return bytes;
}

std::string Describe(const StatusOr<Answer>& answer) {
  if (!answer.ok()) {
    fuzz::RequireSoundError(answer.status());
    return "end: " + std::string(answer.status().message());
  }
  const Status hello = CheckHello(*answer);
  if (!hello.ok()) fuzz::RequireSoundError(hello);
  if (answer->outcome.ok()) return "payload " + *answer->outcome;
  // It may be without words; whoever reports it says before it what was asked.
  fuzz::RequireSoundError(Annotate(answer->outcome.status(), "what was asked"));
  return "error " + std::string(answer->outcome.status().message());
}

// What huskd makes of it: one text for each answer, and the last for the end.
std::vector<std::string> Read(Opening opening, const std::string& bytes, std::size_t piece) {
  std::vector<std::string> heard;
  ttrpc::Decoder decoder;
  bool echoed = false;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    const std::string_view part = std::string_view(bytes).substr(at, piece);
    std::string frames(part);
    if (!echoed) {
      std::optional<std::string> rest = opening.Receive(part);
      if (!rest) continue;
      fuzz::Require(opening.attempts() > 0, "only what was asked is answered");
      echoed = true;
      frames = *std::move(rest);
    }
    decoder.Append(frames);
    while (true) {
      const auto frame = decoder.Next();
      if (frame.ok() && !frame->has_value()) break;
      const StatusOr<Answer> answer = frame.ok() ? ReadAnswer(**frame) : frame.status();
      heard.push_back(Describe(answer));
      if (!answer.ok()) return heard;
    }
  }
  heard.emplace_back(echoed ? "open" : "silent");
  return heard;
}

void Run(fuzz::Script script) {
  const std::size_t piece = 1 + script.Byte();
  Opening opening;
  std::vector<std::string> nonces;
  for (int attempts = 1 + script.Byte() % 4; attempts > 0; --attempts) {
    static_cast<void>(opening.NextAttempt());
    nonces.push_back(opening.nonce());
  }
  const std::string bytes = Write(script, nonces);
  const bool has_echo = bytes.find(std::string(kChannelMarker) + nonces.back()) != std::string::npos;
  const auto whole = Read(opening, bytes, bytes.size() + 1);
  fuzz::Require(Read(opening, bytes, piece) == whole, "it does not matter how reads cut the bytes");
  fuzz::Require((whole.back() == "silent") == !has_echo, "exactly the echo of the last opening opens");
}

}  // namespace
}  // namespace husk::agent

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::agent::Run(husk::fuzz::Script(data, size));
  return 0;
}
