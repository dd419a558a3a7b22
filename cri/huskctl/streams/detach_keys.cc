#include "cri/huskctl/streams/detach_keys.h"

namespace husk::huskctl {
namespace {

constexpr char kControlP = '\x10';
constexpr char kControlQ = '\x11';

}  // namespace

std::string DetachKeys::Filter(std::string_view typed) {
  std::string passed;
  for (const char key : typed) {
    if (detached_) break;
    if (held_ && key == kControlQ) {
      detached_ = true;
      break;
    }
    if (held_) passed.push_back(kControlP);
    held_ = key == kControlP;
    if (!held_) passed.push_back(key);
  }
  return passed;
}

}  // namespace husk::huskctl
