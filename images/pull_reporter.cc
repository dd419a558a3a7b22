#include "images/pull_reporter.h"

#include <chrono>
#include <utility>

namespace husk::images {

PullReporter::PullReporter(std::function<void(const PullProgress&)> callback)
    : callback_(std::move(callback)), next_report_(Context::Clock::now()) {}

void PullReporter::SetTotals(std::uint64_t bytes, std::uint32_t layers) {
  const MutexLock lock(mutex_);
  progress_.bytes_total = bytes;
  progress_.layers_total = layers;
  MaybeReport();
}

void PullReporter::Doing(const std::string& doing) {
  const MutexLock lock(mutex_);
  progress_.waiting_for = doing;
  if (!callback_) return;
  // At once where possible: what a pull hangs in is the last thing that it did.
  const auto now = Context::Clock::now();
  if (now >= window_end_) {
    window_end_ = now + std::chrono::seconds(1);
    reports_in_window_ = 0;
  }
  constexpr int kReportsPerWindow = 8;
  if (++reports_in_window_ <= kReportsPerWindow) callback_(progress_);
}

void PullReporter::AddBytes(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  progress_.bytes_done += bytes;
  MaybeReport();
}

void PullReporter::LayerWasThere(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  progress_.bytes_total -= bytes;
}

void PullReporter::LayerDone() {
  const MutexLock lock(mutex_);
  ++progress_.layers_done;
  MaybeReport();
}

void PullReporter::Flush() {
  const MutexLock lock(mutex_);
  if (callback_) callback_(progress_);
}

void PullReporter::MaybeReport() {
  if (!callback_) return;
  const auto now = Context::Clock::now();
  if (now < next_report_) return;
  next_report_ = now + std::chrono::milliseconds(250);
  callback_(progress_);
}

}  // namespace husk::images
