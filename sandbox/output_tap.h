// A copy of what a container writes, for somebody who watches.
#ifndef HUSK_SANDBOX_OUTPUT_TAP_H_
#define HUSK_SANDBOX_OUTPUT_TAP_H_

#include <cstddef>
#include <deque>
#include <stop_token>
#include <string>
#include <string_view>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "sandbox/client_streams.h"

namespace husk::sandbox {

// The container does not wait for who watches it: one who falls too far behind is cut off. Thread safe.
class OutputTap {
 public:
  static constexpr std::size_t kLimit = std::size_t{1} << 20;

  // Never waits.
  void Put(OutputKind kind, std::string_view bytes);
  // Nothing more will come.
  void Close();

  struct Piece {
    OutputKind kind = OutputKind::kStandardOutput;
    std::string bytes;  // empty: it is over
  };
  // Waits for output. RESOURCE_EXHAUSTED once too much was not taken in time.
  StatusOr<Piece> Take(const Context& context);
  // Fires when it is cut off, for what waits elsewhere.
  [[nodiscard]] std::stop_token cut_off() const { return cut_off_.get_token(); }
  [[nodiscard]] Status CutOffError() const;

 private:
  std::stop_source cut_off_;  // thread safe by itself
  Mutex mutex_;
  ConditionVariable changed_;
  std::deque<Piece> pieces_ ABSL_GUARDED_BY(mutex_);
  std::size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool overflown_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_OUTPUT_TAP_H_
