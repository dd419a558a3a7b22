// Which pulls are under way and how far they are: for the log, and for Status's verbose answer, which huskctl shows.
#ifndef HUSK_CRI_SERVICE_PULL_TRACKER_H_
#define HUSK_CRI_SERVICE_PULL_TRACKER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "agent/common/mutex.h"
#include "images/image_service.h"

namespace husk::cri {

// Thread safe. A thread of its own logs each pull every two seconds, and one that stands still, with what it waits for,
// every ten.
class PullTracker {
 public:
  PullTracker();
  PullTracker(const PullTracker&) = delete;
  PullTracker& operator=(const PullTracker&) = delete;
  ~PullTracker();

  // One pull: begins with the object and ends with it. The tracker must outlive it.
  class Pull {
   public:
    Pull(PullTracker* tracker, std::string reference);
    Pull(const Pull&) = delete;
    Pull& operator=(const Pull&) = delete;
    ~Pull();

    // Takes note; the log's lines come from the tracker's own thread.
    void Update(const images::PullProgress& progress);

    // Bytes fetched so far, and the time since the beginning.
    [[nodiscard]] std::uint64_t bytes_done() const;
    [[nodiscard]] std::chrono::milliseconds elapsed() const;

   private:
    PullTracker* const tracker_;
    std::uint64_t key_ = 0;
  };

  // [{"image", "bytesDone", "bytesTotal", "layersDone", "layersTotal", "waitingFor", "milliseconds"}], oldest first.
  [[nodiscard]] std::string ToJson() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    std::string reference;
    Clock::time_point began;
    Clock::time_point logged;
    Clock::time_point moved;  // when the progress was last another one
    images::PullProgress progress;
  };

  void LogUntilStopped(const std::stop_token& stop);
  // What the log shall have a line of now, waited for; nothing once `stop` is requested.
  std::vector<Entry> AwaitDue(const std::stop_token& stop);
  static void LogLine(const Entry& entry);

  mutable Mutex mutex_;
  ConditionVariable changed_;
  std::uint64_t next_key_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::uint64_t, Entry> pulls_ ABSL_GUARDED_BY(mutex_);
  std::jthread logger_;  // last: it uses the rest
};

// "12.3 MiB".
std::string ReadableBytes(std::uint64_t bytes);

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_PULL_TRACKER_H_
