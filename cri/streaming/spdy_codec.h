// SPDY/3.1 as the kubelet and kubectl speak it.
#ifndef HUSK_CRI_STREAMING_SPDY_CODEC_H_
#define HUSK_CRI_STREAMING_SPDY_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cri/streaming/spdy_headers.h"
#include "cri/streaming/wire.h"

namespace husk::cri {

// Each stream that the peer opens is answered at once. Flow control is TCP's: these peers neither send nor heed
// WINDOW_UPDATE, so none is sent, and none is heeded. Bytes for streams that are over are thrown away.
class SpdyCodec final : public Wire {
 public:
  // Streams that are open at the same time; more are refused.
  static constexpr std::size_t kMaximumStreams = 20'000;
  // Of a control frame: more is an error. Data frames are taken piece by piece, whatever their size.
  static constexpr std::size_t kMaximumControlFrame = std::size_t{1} << 20;

  Status Receive(std::string_view bytes, std::vector<WireEvent>* events) override;
  void Send(WireStream stream, std::string_view data) override;
  void SendEnd(WireStream stream) override;
  void Refuse(WireStream stream) override;
  void SendClose() override;
  // A ping.
  void KeepAlive() override;
  std::string TakeOutput() override;

 private:
  struct Stream {
    bool peer_ended = false;
    bool ended = false;  // on our side
  };

  // Takes what it can from the front of `bytes`; false if more is needed first.
  StatusOr<bool> Step(std::string_view* bytes, std::vector<WireEvent>* events);
  void TakeData(std::string_view* bytes, std::vector<WireEvent>* events);
  Status Control(std::uint64_t type, std::uint8_t flags, std::string_view payload, std::vector<WireEvent>* events);
  Status SynStream(std::uint8_t flags, std::string_view payload, std::vector<WireEvent>* events);
  void Reset(std::string_view payload, std::vector<WireEvent>* events);
  void PeerEnded(WireStream stream, std::vector<WireEvent>* events);
  void AppendControl(std::uint64_t type, std::string_view payload);
  void AppendReset(WireStream stream, std::uint32_t code);
  void AppendData(WireStream stream, std::uint8_t flags, std::string_view data);

  SpdyHeaderReader header_reader_;
  SpdyHeaderWriter header_writer_;
  std::map<WireStream, Stream> streams_;
  WireStream last_stream_ = 0;  // the highest that the peer has opened
  std::string partial_;         // a frame's beginning
  // The data frame in whose middle we are.
  WireStream data_stream_ = 0;
  std::size_t data_left_ = 0;
  bool data_ends_ = false;
  bool closing_ = false;
  std::uint32_t last_ping_ = 0;
  std::string output_;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_SPDY_CODEC_H_
