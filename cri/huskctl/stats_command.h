// What `huskctl stats` and `huskctl top` share.
#ifndef HUSK_CRI_HUSKCTL_STATS_COMMAND_H_
#define HUSK_CRI_HUSKCTL_STATS_COMMAND_H_

#include <string>

#include "agent/common/status.h"
#include "cri/huskctl/client.h"

namespace husk::huskctl {

// Of what is not known.
inline constexpr char kUnknown[] = "-";

// Of two samples a second apart, so that there are rates; `pod` as FindPod takes it, empty: all.
StatusOr<api::ListPodSandboxStatsResponse> SampleStats(Client& client, const std::string& pod);

// "1.500" is one and a half processors.
std::string Cores(const api::CpuUsage& cpu);
std::string Bytes(bool known, const api::UInt64Value& value);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STATS_COMMAND_H_
