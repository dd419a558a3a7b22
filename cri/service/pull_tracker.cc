#include "cri/service/pull_tracker.h"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace husk::cri {
namespace {

constexpr std::chrono::seconds kLogEvery{2};
constexpr std::chrono::seconds kLogStandstillEvery{10};
constexpr auto kLook = std::chrono::milliseconds(500);

}  // namespace

PullTracker::PullTracker() {
  logger_ = std::jthread([this](const std::stop_token& stop) { LogUntilStopped(stop); });
}

PullTracker::~PullTracker() {
  logger_.request_stop();
  const MutexLock lock(mutex_);
  changed_.NotifyAll();
}

PullTracker::Pull::Pull(PullTracker* tracker, std::string reference) : tracker_(tracker) {
  const MutexLock lock(tracker_->mutex_);
  key_ = tracker_->next_key_++;
  const auto now = Clock::now();
  tracker_->pulls_.emplace(
      key_, Entry{.reference = std::move(reference), .began = now, .logged = now, .moved = now, .progress = {}});
  tracker_->changed_.NotifyAll();
}

PullTracker::Pull::~Pull() {
  const MutexLock lock(tracker_->mutex_);
  tracker_->pulls_.erase(key_);
}

void PullTracker::Pull::Update(const images::PullProgress& progress) {
  const MutexLock lock(tracker_->mutex_);
  Entry& kept = tracker_->pulls_.at(key_);
  kept.progress = progress;
  kept.moved = Clock::now();
}

void PullTracker::LogUntilStopped(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    for (const Entry& entry : AwaitDue(stop)) LogLine(entry);
  }
}

std::vector<PullTracker::Entry> PullTracker::AwaitDue(const std::stop_token& stop) {
  std::vector<Entry> due;
  const MutexLock lock(mutex_);
  while (due.empty() && !stop.stop_requested()) {
    if (pulls_.empty()) {
      changed_.Wait(mutex_);
    } else {
      changed_.WaitUntil(mutex_, Clock::now() + kLook);
    }
    const auto now = Clock::now();
    for (auto& [key, entry] : pulls_) {
      const bool moves = entry.moved > entry.logged;
      if (now - entry.logged < (moves ? kLogEvery : kLogStandstillEvery)) continue;
      entry.logged = now;
      due.push_back(entry);
    }
  }
  return due;
}

void PullTracker::LogLine(const Entry& entry) {
  const auto now = entry.logged;
  const images::PullProgress& progress = entry.progress;
  const double seconds = std::chrono::duration<double>(now - entry.began).count();
  const std::string total = progress.bytes_total == 0 ? "?" : ReadableBytes(progress.bytes_total);
  const auto rate = static_cast<std::uint64_t>(static_cast<double>(progress.bytes_done) / seconds);
  const auto still = std::chrono::duration_cast<std::chrono::seconds>(now - entry.moved);
  spdlog::info("pulling image={} bytes={}/{} layers={}/{} rate={}/s waiting_for=\"{}\"{}", entry.reference,
               ReadableBytes(progress.bytes_done), total, progress.layers_done, progress.layers_total,
               ReadableBytes(rate), progress.waiting_for,
               still < kLogEvery ? "" : absl::StrCat(" nothing for ", still.count(), " s"));
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
