#include "cri/streaming/tokens.h"

#include <sys/random.h>

#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace husk::cri {
namespace {

constexpr std::size_t kTokenBytes = 32;

StatusOr<std::string> NewToken() {
  std::array<char, kTokenBytes> bytes{};
  // Up to 256 bytes come whole.
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return ErrnoStatus(errno, "getrandom");
  }
  return absl::WebSafeBase64Escape(std::string(bytes.begin(), bytes.end()));
}

}  // namespace

StatusOr<std::string> TokenStore::Add(StreamRequest request) {
  HUSK_ASSIGN_OR_RETURN(std::string token, NewToken());
  const MutexLock lock(mutex_);
  Expire();
  if (entries_.size() >= kMaximum) {
    return absl::ResourceExhaustedError(
        absl::StrCat(kMaximum, " URLs of the streaming server wait for their clients; try again later"));
  }
  entries_[token] = Entry{.request = std::move(request), .expires = now_() + kLifetime};
  return token;
}

std::optional<StreamRequest> TokenStore::Take(const std::string& token) {
  const MutexLock lock(mutex_);
  Expire();
  const auto found = entries_.find(token);
  if (found == entries_.end()) return std::nullopt;
  StreamRequest request = std::move(found->second.request);
  entries_.erase(found);
  return request;
}

void TokenStore::Expire() {
  const auto now = now_();
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    entry = entry->second.expires <= now ? entries_.erase(entry) : std::next(entry);
  }
}

}  // namespace husk::cri
