// How a connection on the agent channel begins, and how it becomes clean after an earlier one that broke anywhere.
// agent.proto's section "The channel" tells the whole story.
#ifndef HUSK_AGENT_PROTO_CHANNEL_H_
#define HUSK_AGENT_PROTO_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace husk::agent {

// No zero byte, no valid UTF-8.
inline constexpr std::string_view kChannelMarker{"\xff\xfe\xd7husk-sync\xd7\xc3\xfd\xff", 16};
inline constexpr std::size_t kChannelNonceSize = 16;

// XORs `size` bytes at `data` with `nonce` (kChannelNonceSize bytes). `position`: how many bytes of this connection
// followed its nonce before these. Masks and unmasks.
inline void MaskChannelBytes(std::string_view nonce, std::uint64_t position, char* data, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    const unsigned key = static_cast<unsigned char>(nonce[(position + i) % kChannelNonceSize]);
    data[i] = static_cast<char>(static_cast<unsigned char>(data[i]) ^ key);
  }
}

}  // namespace husk::agent

#endif  // HUSK_AGENT_PROTO_CHANNEL_H_
