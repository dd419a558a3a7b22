// Figures of pods and containers, to CRI messages.
#ifndef HUSK_CRI_CONVERT_STATS_H_
#define HUSK_CRI_CONVERT_STATS_H_

#include <string>

#include "cri/proto/api.pb.h"
#include "sandbox/stats.h"

namespace husk::cri {

sandbox::PodFilter PodFilterFromProto(const ::runtime::v1::PodSandboxStatsFilter& filter);
sandbox::ContainerFilter ContainerFilterFromProto(const ::runtime::v1::ContainerStatsFilter& filter);

// What is not known is not set; a message without any figure is absent. `scratch_directory`: where on the host the
// scratch disks lie.
void ContainerStatsToProto(const sandbox::ContainerStats& stats, const std::string& scratch_directory,
                           ::runtime::v1::ContainerStats* out);
void PodStatsToProto(const sandbox::PodStats& stats, const std::string& scratch_directory,
                     ::runtime::v1::PodSandboxStats* out);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_STATS_H_
