// How fast a pod may send and receive, by the annotations that Kubernetes has for it.
#ifndef HUSK_SANDBOX_NETWORK_BANDWIDTH_H_
#define HUSK_SANDBOX_NETWORK_BANDWIDTH_H_

#include <cstdint>
#include <map>
#include <string>

#include "agent/common/status.h"
#include "sandbox/network/network.h"

namespace husk::sandbox {

// kubernetes.io/ingress-bandwidth and kubernetes.io/egress-bandwidth, quantities from 1k to 1P of bits a second.
// INVALID_ARGUMENT names the annotation.
StatusOr<Bandwidth> BandwidthOf(const std::map<std::string, std::string>& annotations);

// What may be sent at once at that rate, in bits, as CNI's bandwidth plugin wants it: a second's worth, but never less
// than a few large packets, nor more than the plugin takes.
std::uint64_t BurstOf(std::uint64_t bits_per_second);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_BANDWIDTH_H_
