// What is told of each call of the CRI, for whoever keeps figures of them.
#ifndef HUSK_CRI_CALL_OBSERVER_H_
#define HUSK_CRI_CALL_OBSERVER_H_

#include <chrono>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"

namespace husk::cri {

// Called from lanes' and gRPC's threads, several at once: it returns at once.
class CallObserver {
 public:
  virtual ~CallObserver() = default;
  // A call ended. `method` is the CRI's name of it; `took` does not count the time in a lane's queue, and is 0 for a
  // call that was refused there.
  virtual void OnCall(std::string_view /*method*/, absl::StatusCode /*code*/, std::chrono::nanoseconds /*took*/) {}
  // A pull ended, having fetched so many compressed bytes.
  virtual void OnPull(bool /*ok*/, std::uint64_t /*bytes*/, std::chrono::nanoseconds /*took*/) {}

  static CallObserver& Nobody() {
    static CallObserver nobody;
    return nobody;
  }
};

}  // namespace husk::cri

#endif  // HUSK_CRI_CALL_OBSERVER_H_
