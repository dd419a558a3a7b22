#include "sandbox/host/pod_id.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace husk::sandbox {

Status CheckPodId(absl::string_view pod_id) {
  const bool good = !pod_id.empty() && pod_id.size() <= 64 && pod_id.front() != '-' &&
                    std::all_of(pod_id.begin(), pod_id.end(),
                                [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("not a pod id: \"", absl::CHexEscape(pod_id.substr(0, 80)), "\""));
}

}  // namespace husk::sandbox
