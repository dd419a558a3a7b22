// Layers are fetched once, however many pulls want them at the same time.
#ifndef HUSK_IMAGES_SHARED_LAYERS_H_
#define HUSK_IMAGES_SHARED_LAYERS_H_

#include <functional>
#include <set>
#include <string>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"

namespace husk::images {

// Thread safe.
class SharedLayers {
 public:
  // `present` says whether the layer is there; `fetch` gets it; `wait` is called before this waits for another caller.
  // Returns OK when the layer is there. If the caller that fetches it fails, one of those that wait fetches it itself,
  // with its own credentials and under its own context.
  Status Ensure(const Context& context, const std::string& diff_id, const std::function<StatusOr<bool>()>& present,
                const std::function<Status()>& fetch, const std::function<void()>& wait);

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  std::set<std::string> in_flight_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_SHARED_LAYERS_H_
