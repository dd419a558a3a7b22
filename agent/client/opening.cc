#include "agent/client/opening.h"

#include <sys/random.h>

#include <algorithm>
#include <cstddef>

#include "agent/proto/channel.h"

namespace husk::agent {
namespace {

constexpr std::size_t kEchoSize = kChannelMarker.size() + kChannelNonceSize;

std::string RandomNonce() {
  std::string nonce(kChannelNonceSize, '\0');
  // Up to 256 bytes never come short, and the pool is ready long before any daemon runs.
  while (getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
  }
  return nonce;
}

}  // namespace

std::string Opening::NextAttempt() {
  nonce_ = RandomNonce();
  nonces_.insert(nonce_);
  ++attempts_;
  return std::string(kChannelMarker) + nonce_;
}

std::optional<std::string> Opening::Receive(std::string_view bytes) {
  tail_.append(bytes);
  std::size_t at = 0;
  while ((at = tail_.find(kChannelMarker, at)) != std::string::npos && tail_.size() - at >= kEchoSize) {
    const std::string nonce = tail_.substr(at + kChannelMarker.size(), kChannelNonceSize);
    if (nonce == nonce_) return tail_.substr(at + kEchoSize);
    if (nonces_.contains(nonce)) guest_listens_ = true;
    ++at;
  }
  // From a marker whose nonce is not complete, or as much as a cut marker can be.
  const std::size_t keep =
      at == std::string::npos ? std::min(tail_.size(), kChannelMarker.size() - 1) : tail_.size() - at;
  tail_.erase(0, tail_.size() - keep);
  return std::nullopt;
}

}  // namespace husk::agent
