// Pods and containers in Husk's own words: what cri/ converts from and to the CRI's messages.
#ifndef HUSK_SANDBOX_TYPES_H_
#define HUSK_SANDBOX_TYPES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sandbox/network/network.h"

namespace husk::sandbox {

using StringMap = std::map<std::string, std::string>;

enum class NamespaceMode { kPod, kContainer, kNode, kTarget };

struct NamespaceOptions {
  NamespaceMode network = NamespaceMode::kPod;
  NamespaceMode pid = NamespaceMode::kContainer;
  NamespaceMode ipc = NamespaceMode::kPod;
  std::string target_container_id;
};

// Limits in the kernel's terms; 0 or empty: none given.
struct LinuxResources {
  std::int64_t cpu_period = 0;  // microseconds
  std::int64_t cpu_quota = 0;   // microseconds
  std::int64_t cpu_shares = 0;
  std::int64_t memory_limit_bytes = 0;
  std::int64_t oom_score_adjustment = 0;
  std::string cpuset_cpus;
  std::string cpuset_mems;
  StringMap unified;
  std::int64_t memory_swap_limit_bytes = 0;
  // Bytes by the page's size in the kernel's words, such as "2MB"; 0: none of them may be used. Not in it: no limit.
  std::map<std::string, std::uint64_t> hugepage_limits;
};

struct PodMetadata {
  std::string name;
  std::string uid;
  std::string kubernetes_namespace;
  std::uint32_t attempt = 0;
};

struct DnsConfig {
  std::vector<std::string> servers;
  std::vector<std::string> searches;
  std::vector<std::string> options;
};

// What a pod has instead of RuntimeOptions' of the same name; absent: the node's. docs/adr/0127.
struct VmChoices {
  std::optional<std::uint32_t> default_vcpus;
  std::optional<std::uint32_t> unlimited_vcpus;
  std::optional<std::uint64_t> default_memory_bytes;
  std::optional<std::uint64_t> unlimited_memory_bytes;
  std::optional<std::uint64_t> scratch_bytes;

  bool operator==(const VmChoices&) const = default;
};

struct PodConfig {
  PodMetadata metadata;
  std::string hostname;
  std::string log_directory;
  DnsConfig dns;
  std::vector<PortMapping> port_mappings;
  StringMap labels;
  StringMap annotations;
  std::string cgroup_parent;
  StringMap sysctls;
  NamespaceOptions namespaces;
  bool privileged = false;
  LinuxResources resources;
  LinuxResources overhead;
  std::string runtime_handler;
  VmChoices vm_choices;
};

enum class PodState { kReady, kNotReady };

struct PodStatus {
  std::string id;
  PodConfig config;
  PodState state = PodState::kNotReady;
  std::int64_t created_at = 0;         // nanoseconds since 1970
  std::vector<std::string> addresses;  // without prefix length; the primary first
  // For verbose status: facts such as the VM's pid. Values are JSON.
  StringMap information;
};

struct ContainerMetadata {
  std::string name;
  std::uint32_t attempt = 0;
};

struct UserSpec {
  std::optional<std::int64_t> uid;
  std::optional<std::int64_t> gid;
  std::string username;
  std::vector<std::uint32_t> supplemental_gids;
  // The groups that the image's /etc/group gives the user are left out (SupplementalGroupsPolicy Strict).
  bool strict_supplemental_groups = false;
};

// Who a container's first process is, as the guest resolved it.
struct ResolvedUser {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> supplemental_gids;
};

// Which system calls a container may make.
enum class SeccompKind { kUnconfined, kRuntimeDefault, kLocalhost };

struct SeccompProfile {
  SeccompKind kind = SeccompKind::kUnconfined;
  std::string path;  // kLocalhost: of the profile on the host
};

struct SecurityContext {
  bool privileged = false;
  std::vector<std::string> add_capabilities;
  std::vector<std::string> drop_capabilities;
  std::vector<std::string> add_ambient_capabilities;
  NamespaceOptions namespaces;
  UserSpec user;
  bool readonly_root = false;
  bool no_new_privileges = false;
  std::optional<std::vector<std::string>> masked_paths;    // absent: the defaults
  std::optional<std::vector<std::string>> readonly_paths;  // absent: the defaults
  SeccompProfile seccomp;
};

struct ContainerMount {
  std::string container_path;
  std::string host_path;
  bool read_only = false;
  std::vector<std::string> flags;  // "nosuid", "nodev", "noexec"
  std::string image;               // a reference or id: the mount is of this image, and there is no host_path
  std::string image_sub_path;      // a directory of it; empty: all of it
  bool of_device = false;          // a CDI device brought it: no mount of the caller's
  bool follow_mounts = false;      // what the host mounts below it later appears too
};

struct ContainerDevice {
  std::string container_path;
  std::string host_path;
  std::string permissions = "rwm";  // some of "r", "w", "m"
  // Of the node in the container; absent: the host's.
  std::optional<std::uint32_t> mode;  // permission bits
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
};

struct ContainerConfig {
  ContainerMetadata metadata;
  std::string image;       // what to run: a reference or id that ImageService finds
  std::string user_image;  // as the pod's author wrote it (ImageSpec.user_specified_image)
  StringMap image_annotations;
  std::vector<std::string> command;
  std::vector<std::string> arguments;
  std::string working_directory;
  std::vector<std::pair<std::string, std::string>> environment;  // bytes, in order
  std::vector<ContainerMount> mounts;
  std::vector<ContainerDevice> devices;
  std::vector<std::string> cdi_devices;  // "vendor.com/class=device"; what they bring is in the other fields once made
  StringMap labels;
  StringMap annotations;
  std::string log_path;  // below the pod's log_directory
  bool stdin = false;
  bool stdin_once = false;
  bool tty = false;
  LinuxResources resources;
  SecurityContext security;
  std::string stop_signal;  // "SIGTERM"; empty: the image's, else SIGTERM
};

enum class ContainerState { kCreated, kRunning, kExited, kUnknown };

struct ContainerStatus {
  std::string id;
  std::string pod_id;
  ContainerConfig config;
  ContainerState state = ContainerState::kUnknown;
  std::int64_t created_at = 0;  // nanoseconds since 1970; 0: not yet
  std::int64_t started_at = 0;
  std::int64_t finished_at = 0;
  std::int32_t exit_code = 0;
  std::string reason;  // Completed, Error, OOMKilled, StartError, Unknown
  std::string message;
  std::string image_id;              // "sha256:..."
  std::string image_reference;       // the digest form
  std::string log_path;              // absolute on the host; empty if there is none
  std::uint32_t guest_pid = 0;       // of its first process, in the guest; 0: not known
  std::optional<ResolvedUser> user;  // absent until the guest has made it
  StringMap information;             // for verbose status; values are JSON
};

struct PodFilter {
  std::string id;  // a prefix
  std::optional<PodState> state;
  StringMap labels;
};

struct ContainerFilter {
  std::string id;      // a prefix
  std::string pod_id;  // a prefix
  std::optional<ContainerState> state;
  StringMap labels;
};

struct ExecResult {
  std::string standard_output;
  std::string standard_error;
  std::int32_t exit_code = 0;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_TYPES_H_
