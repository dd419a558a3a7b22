// Collects what a pull's threads do into progress reports.
#ifndef HUSK_IMAGES_PULL_REPORTER_H_
#define HUSK_IMAGES_PULL_REPORTER_H_

#include <cstdint>
#include <functional>
#include <string>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "images/image_service.h"

namespace husk::images {

// Thread safe. Reports one at a time: bytes at most four times a second, new activities at most eight times.
class PullReporter {
 public:
  explicit PullReporter(std::function<void(const PullProgress&)> callback);

  void SetTotals(std::uint64_t bytes, std::uint32_t layers);
  void Doing(const std::string& doing);
  void AddBytes(std::uint64_t bytes);
  // The layer needs no fetching: its bytes do not count.
  void LayerWasThere(std::uint64_t bytes);
  void LayerDone();
  // Reports whatever has not been reported yet.
  void Flush();

 private:
  void MaybeReport() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<void(const PullProgress&)> callback_;
  Mutex mutex_;
  PullProgress progress_ ABSL_GUARDED_BY(mutex_);
  Context::Clock::time_point next_report_ ABSL_GUARDED_BY(mutex_);
  Context::Clock::time_point window_end_ ABSL_GUARDED_BY(mutex_);
  int reports_in_window_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_PULL_REPORTER_H_
