// The secrets in the URLs of the streaming server.
#ifndef HUSK_CRI_STREAMING_TOKENS_H_
#define HUSK_CRI_STREAMING_TOKENS_H_

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "cri/streaming/stream_request.h"

namespace husk::cri {

// A token stands for one request, once, for a minute. Whoever has it may do what was asked for, so it is as long as a
// key, and is never logged. Thread safe.
class TokenStore {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kLifetime = std::chrono::minutes(1);
  static constexpr std::size_t kMaximum = 1000;

  // `now`: for tests.
  explicit TokenStore(std::function<Clock::time_point()> now = [] { return Clock::now(); }) : now_(std::move(now)) {}

  // 43 characters that need no escape in a URL. RESOURCE_EXHAUSTED if too many wait for their clients.
  StatusOr<std::string> Add(StreamRequest request);
  // The request, which the token no longer stands for; nothing if it is unknown, used, or too old.
  std::optional<StreamRequest> Take(const std::string& token);

 private:
  struct Entry {
    StreamRequest request;
    Clock::time_point expires;
  };
  void Expire() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<Clock::time_point()> now_;
  Mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_TOKENS_H_
