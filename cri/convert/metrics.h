// The metrics of ListPodSandboxMetrics: cAdvisor's names and labels, which dashboards know.
#ifndef HUSK_CRI_CONVERT_METRICS_H_
#define HUSK_CRI_CONVERT_METRICS_H_

#include <google/protobuf/repeated_field.h>

#include "cri/proto/api.pb.h"
#include "sandbox/stats.h"

namespace husk::cri {

// Always the same. The kubelet asks once, and drops metrics that have no descriptor.
void MetricDescriptorsToProto(google::protobuf::RepeatedPtrField<::runtime::v1::MetricDescriptor>* out);

// Each metric has a descriptor, and label values in the order of its keys. What is not known is left out. The CRI's
// values are whole numbers: seconds are cut off.
void PodMetricsToProto(const sandbox::PodStats& stats, ::runtime::v1::PodSandboxMetrics* out);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_METRICS_H_
