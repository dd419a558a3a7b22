// huskd's configuration: embedded defaults, then the file, then its drop-ins in lexical order, then the command line.
#ifndef HUSK_CRI_CONFIG_CONFIG_H_
#define HUSK_CRI_CONFIG_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "cri/lanes.h"

namespace husk::cri {

inline constexpr char kDefaultConfigFile[] = "/etc/husk/config.yaml";

enum class AcceleratorChoice { kAuto, kKvm, kTcg };
enum class CgroupDriver { kCgroupfs, kSystemd };

// Every field is a key of the file; docs/configuration.md says what each means.
struct Config {
  std::string root = "/var/lib/husk";
  std::string state = "/run/husk";
  std::string listen = "unix:///run/husk/huskd.sock";
  std::string log_level = "info";

  struct VirtualMachine {
    std::string qemu = "/usr/bin/qemu-system-x86_64";
    std::string launcher;  // empty here and in the next two: found beside the executable
    std::string kernel;
    std::string initrd;
    AcceleratorChoice accelerator = AcceleratorChoice::kAuto;
    std::uint32_t default_vcpus = 1;
    std::uint32_t maximum_vcpus = 0;  // 0: the host's
    // Of the host's CPUs, for a pod with a container that has no limit of CPU; default_vcpus if that is more.
    std::uint32_t unlimited_cpu_percent = 0;
    std::uint64_t default_memory = std::uint64_t{256} << 20;
    std::uint64_t maximum_memory = 0;  // 0: the host's
    // Up to which a pod with a container that has no limit of memory grows. 0: half of maximum_memory.
    std::uint64_t unlimited_memory = 0;
    std::uint64_t scratch_size = std::uint64_t{8} << 30;
    std::uint32_t first_user = 400'000;
    std::uint32_t user_count = 20'000;
    std::vector<std::string> allowed_annotations;  // of pod_annotations.h
  } vm;

  struct Network {
    std::string configuration_directory = "/etc/cni/net.d";
    std::vector<std::string> plugin_directories = {"/opt/cni/bin", "/usr/lib/cni"};
    std::string default_bridge = "husk0";
    std::string default_subnet = "10.88.0.0/16";
    bool filter_sources = true;
  } network;

  struct Streaming {
    std::string address = "127.0.0.1:0";
    std::string certificate;
    std::string key;
  } streaming;

  std::uint32_t parallel_layers = 3;
  std::vector<std::string> pinned_images;
  std::string registry_hosts = "/etc/husk/certs.d";

  std::vector<std::string> cdi_directories = {"/etc/cdi", "/var/run/cdi"};
  std::string metrics_address = "127.0.0.1:9477";  // empty: no endpoint

  CgroupDriver cgroup_driver = CgroupDriver::kCgroupfs;
  std::string cgroup_root = "/husk";

  // In the order of LaneClass.
  LaneLimitsByClass lanes = {{{.workers = 8, .queue = 512},
                              {.workers = 64, .queue = 256},
                              {.workers = 128, .queue = 512},
                              {.workers = 16, .queue = 128},
                              {.workers = 128, .queue = 256},
                              {.workers = 8, .queue = 128}}};
};

// Reads `path`, and conf.d/*.yaml beside it. With `must_exist` false a missing file means the defaults (its drop-ins
// are read all the same). Errors are INVALID_ARGUMENT, "FILE:LINE:COLUMN: ..." with what would have been right.
StatusOr<Config> LoadConfig(const std::string& path, bool must_exist);

// One file's or drop-in's text over `config`. `name` is what errors call it. `version` is required unless `drop_in`.
Status ApplyConfigText(const std::string& text, const std::string& name, bool drop_in, Config* config);

// What concerns several keys at once, such as default_memory above maximum_memory; to be called after the command line
// was applied as well.
Status CheckConfig(const Config& config);

// vm.unlimited_cpu_percent of this host's CPUs, rounded up.
std::uint32_t UnlimitedVcpus(const Config& config);

// The path of a "unix:///PATH" or "/PATH"; INVALID_ARGUMENT for anything else.
StatusOr<std::string> SocketPath(const std::string& listen);

// The whole configuration as a file that LoadConfig accepts.
std::string ConfigToYaml(const Config& config);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONFIG_CONFIG_H_
