#include "cri/service/pull_tracker.h"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"

namespace husk::cri {

namespace {
constexpr auto kLogEvery = std::chrono::seconds(2);
}  // namespace

PullTracker::Pull::Pull(PullTracker* tracker, std::string reference) : tracker_(tracker) {
  const MutexLock lock(tracker_->mutex_);
  key_ = tracker_->next_key_++;
  const auto now = Clock::now();
  tracker_->pulls_.emplace(key_, Entry{.reference = std::move(reference), .began = now, .logged = now, .progress = {}});
}

PullTracker::Pull::~Pull() {
  const MutexLock lock(tracker_->mutex_);
  tracker_->pulls_.erase(key_);
}

void PullTracker::Pull::Update(const images::PullProgress& progress) {
  const auto now = Clock::now();
  Entry entry;
  {
    const MutexLock lock(tracker_->mutex_);
    Entry& kept = tracker_->pulls_.at(key_);
    kept.progress = progress;
    if (now - kept.logged < kLogEvery) return;
    kept.logged = now;
    entry = kept;
  }
  const double seconds = std::chrono::duration<double>(now - entry.began).count();
  const std::string total = progress.bytes_total == 0 ? "?" : ReadableBytes(progress.bytes_total);
  const auto rate = static_cast<std::uint64_t>(static_cast<double>(progress.bytes_done) / seconds);
  spdlog::info("pulling image={} bytes={}/{} layers={}/{} rate={}/s waiting_for=\"{}\"", entry.reference,
               ReadableBytes(progress.bytes_done), total, progress.layers_done, progress.layers_total,
               ReadableBytes(rate), progress.waiting_for);
}

std::uint64_t PullTracker::Pull::bytes_done() const {
  const MutexLock lock(tracker_->mutex_);
  return tracker_->pulls_.at(key_).progress.bytes_done;
}

std::chrono::milliseconds PullTracker::Pull::elapsed() const {
  const MutexLock lock(tracker_->mutex_);
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - tracker_->pulls_.at(key_).began);
}

std::string PullTracker::ToJson() const {
  nlohmann::json list = nlohmann::json::array();
  const MutexLock lock(mutex_);
  for (const auto& [key, entry] : pulls_) {
    const auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - entry.began);
    list.push_back({{"image", entry.reference},
                    {"bytesDone", entry.progress.bytes_done},
                    {"bytesTotal", entry.progress.bytes_total},
                    {"layersDone", entry.progress.layers_done},
                    {"layersTotal", entry.progress.layers_total},
                    {"waitingFor", entry.progress.waiting_for},
                    {"milliseconds", elapsed.count()}});
  }
  // Bytes of a reference that are no UTF-8 are replaced: it came from a client.
  return list.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string ReadableBytes(std::uint64_t bytes) {
  constexpr double kStep = 1024;
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= kStep && unit + 1 < std::size(units); ++unit) value /= kStep;
  return unit == 0 ? absl::StrFormat("%d B", bytes) : absl::StrFormat("%.1f %s", value, units[unit]);
}

}  // namespace husk::cri
