// A pod's own settings of its VM: annotations that a node allows. docs/adr/0127.
#ifndef HUSK_CRI_CONFIG_POD_ANNOTATIONS_H_
#define HUSK_CRI_CONFIG_POD_ANNOTATIONS_H_

#include <map>
#include <string>

#include "agent/common/status.h"
#include "cri/config/config.h"

namespace husk::cri {

// All annotations that begin so are Husk's.
inline constexpr char kAnnotationPrefix[] = "husk.dev/";

// Each is the key of the same name below vm, for this pod.
inline constexpr char kDefaultVcpusAnnotation[] = "husk.dev/default-vcpus";
inline constexpr char kUnlimitedCpuPercentAnnotation[] = "husk.dev/unlimited-cpu-percent";
inline constexpr char kDefaultMemoryAnnotation[] = "husk.dev/default-memory";
inline constexpr char kUnlimitedMemoryAnnotation[] = "husk.dev/unlimited-memory";
inline constexpr char kScratchSizeAnnotation[] = "husk.dev/scratch-size";

// OK for the names above. The error says which would have been right.
Status CheckPodAnnotation(const std::string& name);

// `node` as it is for a pod with these annotations; those that are not Husk's do nothing. They are read and checked as
// the keys are, against the maxima too, which the caller has filled in. Errors begin with
// "config.annotations[NAME]: ". INVALID_ARGUMENT for an unknown name and a bad value, PERMISSION_DENIED for one that is
// not among vm.allowed_annotations.
StatusOr<Config> ConfigForPod(const Config& node, const std::map<std::string, std::string>& annotations);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONFIG_POD_ANNOTATIONS_H_
