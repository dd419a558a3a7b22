// How `huskctl top` shows what pods have, shall have, and use.
#ifndef HUSK_CRI_HUSKCTL_TOP_COMMAND_H_
#define HUSK_CRI_HUSKCTL_TOP_COMMAND_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cri/proto/api.pb.h"

namespace husk::huskctl {

// One pod, as several calls tell of it.
struct TopPod {
  ::runtime::v1::PodSandboxStats stats;
  std::string vm;                                          // of its verbose status: JSON; empty if there is none
  std::vector<::runtime::v1::ContainerStatus> containers;  // those that `stats` names, or some of them
};

// A head, then a row for each pod with its containers' below it. What is not known is "-".
std::vector<std::vector<std::string>> TopRows(const std::vector<TopPod>& pods);
// The same facts, as numbers: a list of {"pod": {...}, "containers": [...]}. What is not known is absent.
nlohmann::json TopJson(const std::vector<TopPod>& pods);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_TOP_COMMAND_H_
