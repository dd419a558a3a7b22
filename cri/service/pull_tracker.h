// Which pulls are under way and how far they are: for the log, and for Status's verbose answer, which huskctl shows.
#ifndef HUSK_CRI_SERVICE_PULL_TRACKER_H_
#define HUSK_CRI_SERVICE_PULL_TRACKER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "agent/common/mutex.h"
#include "images/image_service.h"

namespace husk::cri {

// Thread safe.
class PullTracker {
 public:
  // One pull: begins with the object and ends with it. The tracker must outlive it.
  class Pull {
   public:
    Pull(PullTracker* tracker, std::string reference);
    Pull(const Pull&) = delete;
    Pull& operator=(const Pull&) = delete;
    ~Pull();

    // Takes note, and logs a line every two seconds.
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
    images::PullProgress progress;
  };
  mutable Mutex mutex_;
  std::uint64_t next_key_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::uint64_t, Entry> pulls_ ABSL_GUARDED_BY(mutex_);
};

// "12.3 MiB".
std::string ReadableBytes(std::uint64_t bytes);

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_PULL_TRACKER_H_
