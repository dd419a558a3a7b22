// The guest's end of the channel: a host that opens connections, cuts them anywhere, and sends frames and rubbish. What
// the decoder makes of the bytes must not depend on how reads cut them, and requests that were sent whole must come
// out.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/fuzz_require.h"
#include "agent/guest/channel.h"
#include "agent/proto/channel.h"

namespace husk::agent {
namespace {

constexpr std::size_t kOpeningSize = kChannelMarker.size() + kChannelNonceSize;
constexpr std::string_view kLast = "the last request";
constexpr std::size_t kMaximumStream = std::size_t{256} << 10;

enum Step : std::uint8_t { kOpen, kCutOpening, kRequest, kFrame, kRawMasked, kRaw, kMarkerPiece, kSteps };

// The bytes that a script stands for, and what a decoder must find in them as long as nobody breaks the rules.
class Host {
 public:
  void Run(fuzz::Script& script) {
    while (!script.empty() && bytes_.size() < kMaximumStream) Do(static_cast<Step>(script.Byte() % kSteps), script);
    // Whatever came before: who opens properly is heard.
    Open("0123456789abcdef");
    Masked(ttrpc::Encode({.stream_id = 1, .payload = std::string(kLast)}));
  }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }
  // Payloads that must come out, in order: those before the first bytes that are no part of the protocol.
  [[nodiscard]] const std::vector<std::string>& expected() const { return expected_; }

 private:
  void Do(Step step, fuzz::Script& script) {
    switch (step) {
      case kOpen:
        return Open(script.Bytes(kChannelNonceSize));
      case kCutOpening:
        sound_ = false;
        bytes_ += (std::string(kChannelMarker) + std::string(script.Text())).substr(0, script.Byte());
        return;
      case kRequest: {
        const std::string payload(script.Text());
        if (sound_) expected_.push_back(payload);
        return Masked(ttrpc::Encode({.stream_id = script.Byte(), .payload = payload}));
      }
      case kFrame:
        sound_ = false;
        return Masked(Header(script) + std::string(script.Text()));
      case kRawMasked:
        sound_ = false;
        return Masked(std::string(script.Text()));
      case kRaw:
        sound_ = false;
        bytes_ += script.Text();
        return;
      default:
        sound_ = false;
        bytes_ += kChannelMarker.substr(0, script.Byte() % kChannelMarker.size());
        return;
    }
  }

  void Open(std::string_view nonce) {
    nonce_ = std::string(nonce);
    nonce_.resize(kChannelNonceSize, 'n');
    // A nonce is random on a real channel. One that holds the marker's first byte may make any bytes look like it.
    for (char& byte : nonce_) byte = static_cast<char>(byte & 0x3f);
    bytes_ += std::string(kChannelMarker) + nonce_;
    position_ = 0;
    if (bytes_.size() == kOpeningSize) sound_ = true;
  }

  void Masked(std::string bytes) {
    MaskChannelBytes(nonce_, position_, bytes.data(), bytes.size());
    position_ += bytes.size();
    bytes_ += bytes;
    // A request of the fuzzer's may become the marker by its mask, which a random nonce rules out.
    const std::size_t looked_at = bytes_.size() - std::min(bytes_.size(), bytes.size() + kChannelMarker.size() - 1);
    if (bytes_.find(kChannelMarker, looked_at) == std::string::npos) return;
    sound_ = false;
    expected_.clear();
  }

  static std::string Header(fuzz::Script& script) {
    std::string header(script.Bytes(ttrpc::kHeaderSize));
    header.resize(ttrpc::kHeaderSize);
    return header;
  }

  std::string nonce_ = std::string(kChannelNonceSize, 'n');
  std::uint64_t position_ = 0;
  std::string bytes_;
  bool sound_ = false;
  std::vector<std::string> expected_;
};

// One text for each event: comparable.
std::string Describe(const ChannelDecoder::Event& event) {
  fuzz::Require(event.connected != event.request.has_value(), "an event is a connection or a request");
  if (event.connected) {
    fuzz::Require(event.nonce.size() == kChannelNonceSize, "a nonce is whole");
    return "connected " + event.nonce;
  }
  fuzz::Require(event.request->payload.size() <= ttrpc::kMaximumPayload, "a payload is not too long");
  return "request " + std::to_string(event.request->stream_id) + " " + event.request->payload;
}

std::vector<std::string> Decode(const std::string& bytes, std::size_t piece) {
  ChannelDecoder decoder;
  std::vector<std::string> events;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    decoder.Append(std::string_view(bytes).substr(at, piece));
    while (const auto event = decoder.Next()) events.push_back(Describe(*event));
  }
  return events;
}

// True if an opening is cut by another one: then it depends on the reads whether the first one counts for a moment.
bool HasCutOpening(const std::string& bytes) {
  for (std::size_t at = bytes.find(kChannelMarker); at != std::string::npos;) {
    const std::size_t next = bytes.find(kChannelMarker, at + 1);
    if (next != std::string::npos && next - at < kOpeningSize) return true;
    at = next;
  }
  return false;
}

void Run(fuzz::Script script) {
  const std::size_t piece = 1 + script.Byte();
  Host host;
  host.Run(script);
  const auto whole = Decode(host.bytes(), host.bytes().size() + 1);
  const auto in_pieces = Decode(host.bytes(), piece);
  for (const auto& events : {whole, in_pieces}) {
    fuzz::Require(!events.empty() && events.back() == "request 1 " + std::string(kLast), "the last request comes out");
  }
  if (!HasCutOpening(host.bytes())) {
    fuzz::Require(whole == in_pieces, "it does not matter how reads cut the bytes");
  }
  std::size_t next = 0;
  for (const std::string& event : whole) {
    if (next < host.expected().size() && event.starts_with("request ") && event.ends_with(host.expected()[next]))
      ++next;
  }
  fuzz::Require(next == host.expected().size(), "requests that were sent whole come out");
}

}  // namespace
}  // namespace husk::agent

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::agent::Run(husk::fuzz::Script(data, size));
  return 0;
}
