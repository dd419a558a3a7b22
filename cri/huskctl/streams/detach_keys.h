// The keys by which a user leaves a container that goes on running: Ctrl-P Ctrl-Q, as with other container tools.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_DETACH_KEYS_H_
#define HUSK_CRI_HUSKCTL_STREAMS_DETACH_KEYS_H_

#include <string>
#include <string_view>

namespace husk::huskctl {

// Looks at what is typed, in pieces of any size. Not thread safe.
class DetachKeys {
 public:
  // What goes on to the container. A Ctrl-P is held back until the next key tells what it was.
  std::string Filter(std::string_view typed);
  // The keys came; what is typed after them is nobody's.
  [[nodiscard]] bool detached() const { return detached_; }

 private:
  bool held_ = false;
  bool detached_ = false;
};

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_DETACH_KEYS_H_
