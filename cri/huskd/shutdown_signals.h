// SIGTERM and SIGINT as a stop token.
#ifndef HUSK_CRI_HUSKD_SHUTDOWN_SIGNALS_H_
#define HUSK_CRI_HUSKD_SHUTDOWN_SIGNALS_H_

#include <memory>
#include <stop_token>
#include <thread>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::cri {

// Made once, by main, before any other thread, so that every thread blocks the signals. SIGPIPE is ignored from then
// on. Child processes get clean masks from those who start them.
class ShutdownSignals {
 public:
  static StatusOr<std::unique_ptr<ShutdownSignals>> Install();
  ~ShutdownSignals();
  ShutdownSignals(const ShutdownSignals&) = delete;
  ShutdownSignals& operator=(const ShutdownSignals&) = delete;

  // Fires at the first signal.
  [[nodiscard]] std::stop_token token() const { return stop_.get_token(); }

 private:
  ShutdownSignals(UniqueFd signals, UniqueFd quit);
  void Watch();

  std::stop_source stop_;
  UniqueFd signals_;
  UniqueFd quit_;
  std::thread watcher_;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_HUSKD_SHUTDOWN_SIGNALS_H_
