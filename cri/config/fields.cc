#include "cri/config/fields.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cri/config/network_address.h"
#include "cri/config/pod_annotations.h"

namespace husk::cri {

namespace {

constexpr std::array<std::pair<std::string_view, std::uint64_t>, 8> kByteUnits = {{{"Ti", std::uint64_t{1} << 40},
                                                                                   {"Gi", std::uint64_t{1} << 30},
                                                                                   {"Mi", std::uint64_t{1} << 20},
                                                                                   {"Ki", std::uint64_t{1} << 10},
                                                                                   {"T", 1'000'000'000'000},
                                                                                   {"G", 1'000'000'000},
                                                                                   {"M", 1'000'000},
                                                                                   {"k", 1'000}}};

absl::string_view View(std::string_view text) {
  return {text.data(), text.size()};
}

StatusOr<std::string> Scalar(const YAML::Node& node, std::string_view expected) {
  if (!node.IsScalar()) return absl::InvalidArgumentError(absl::StrCat("expected ", View(expected)));
  return node.Scalar();
}

Status CheckPath(const std::string& path) {
  if (path.empty() || path.front() != '/' || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("expected an absolute path, not \"", path, "\""));
  }
  return absl::OkStatus();
}

// `where` picks the field's place in a Config; it serves reading and printing.
template <typename Value>
using Where = std::function<Value&(Config&)>;

template <typename Value>
const Value& Look(const Where<Value>& where, const Config& config) {
  // The accessor only picks a member; it is shared by reading and writing, so it takes a Config&.
  return where(const_cast<Config&>(config));
}

ConfigField TextField(std::string key, Where<std::string> where,
                      std::function<Status(const std::string&)> check = nullptr) {
  return {.key = std::move(key),
          .set = [where, check](const YAML::Node& node, Config* config) -> Status {
            HUSK_ASSIGN_OR_RETURN(std::string value, Scalar(node, "a string"));
            if (check) HUSK_RETURN_IF_ERROR(check(value));
            where(*config) = std::move(value);
            return absl::OkStatus();
          },
          .print = [where](const Config& config, YAML::Emitter* out) { *out << Look(where, config); }};
}

ConfigField PathField(std::string key, Where<std::string> where) {
  return TextField(std::move(key), std::move(where), CheckPath);
}

ConfigField OptionalPathField(std::string key, Where<std::string> where) {
  return TextField(std::move(key), std::move(where),
                   [](const std::string& path) { return path.empty() ? absl::OkStatus() : CheckPath(path); });
}

// `expected` completes "expected a list of ...".
ConfigField ListField(std::string key, std::string expected, bool empty_allowed,
                      std::function<Status(const std::string&)> check, Where<std::vector<std::string>> where) {
  return {.key = std::move(key),
          .set = [expected = "a list of " + expected, empty_allowed, check, where](const YAML::Node& node,
                                                                                   Config* config) -> Status {
            if (!node.IsSequence() || (node.size() == 0 && !empty_allowed)) {
              return absl::InvalidArgumentError("expected " + expected);
            }
            std::vector<std::string> items;
            for (const YAML::Node& item : node) {
              HUSK_ASSIGN_OR_RETURN(std::string text, Scalar(item, expected));
              HUSK_RETURN_IF_ERROR(check(text));
              items.push_back(std::move(text));
            }
            where(*config) = std::move(items);
            return absl::OkStatus();
          },
          .print =
              [where](const Config& config, YAML::Emitter* out) {
                *out << YAML::Flow << YAML::BeginSeq;
                for (const std::string& item : Look(where, config)) *out << item;
                *out << YAML::EndSeq;
              }};
}

ConfigField NumberField(std::string key, std::uint32_t minimum, std::uint32_t maximum, Where<std::uint32_t> where) {
  return {.key = std::move(key),
          .set = [minimum, maximum, where](const YAML::Node& node, Config* config) -> Status {
            const std::string expected = absl::StrCat("a number from ", minimum, " to ", maximum);
            HUSK_ASSIGN_OR_RETURN(const std::string text, Scalar(node, expected));
            std::uint64_t value = 0;
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
            if (error != std::errc() || end != text.data() + text.size() || value < minimum || value > maximum) {
              return absl::InvalidArgumentError(absl::StrCat("expected ", expected, ", not \"", text, "\""));
            }
            where(*config) = static_cast<std::uint32_t>(value);
            return absl::OkStatus();
          },
          .print = [where](const Config& config, YAML::Emitter* out) { *out << Look(where, config); }};
}

ConfigField SizeField(std::string key, std::uint64_t minimum, bool zero_allowed, Where<std::uint64_t> where) {
  return {.key = std::move(key),
          .set = [minimum, zero_allowed, where](const YAML::Node& node, Config* config) -> Status {
            HUSK_ASSIGN_OR_RETURN(const std::string text, Scalar(node, "a size such as 256Mi"));
            HUSK_ASSIGN_OR_RETURN(const std::uint64_t value, ParseByteSize(text));
            if (value < minimum && !(zero_allowed && value == 0)) {
              return absl::InvalidArgumentError(absl::StrCat("expected at least ", FormatByteSize(minimum),
                                                             zero_allowed ? ", or 0," : ",", " not \"", text, "\""));
            }
            where(*config) = value;
            return absl::OkStatus();
          },
          .print = [where](const Config& config, YAML::Emitter* out) { *out << FormatByteSize(Look(where, config)); }};
}

template <typename Value>
ConfigField ChoiceField(std::string key, std::vector<std::pair<std::string, Value>> choices, Where<Value> where) {
  return {.key = std::move(key),
          .set = [choices, where](const YAML::Node& node, Config* config) -> Status {
            const std::string expected = absl::StrCat(
                "one of ",
                absl::StrJoin(choices, ", ", [](std::string* out, const std::pair<std::string, Value>& choice) {
                  out->append(choice.first);
                }));
            HUSK_ASSIGN_OR_RETURN(const std::string text, Scalar(node, expected));
            for (const auto& [name, value] : choices) {
              if (name == text) {
                where(*config) = value;
                return absl::OkStatus();
              }
            }
            return absl::InvalidArgumentError(absl::StrCat("expected ", expected, ", not \"", text, "\""));
          },
          .print =
              [choices, where](const Config& config, YAML::Emitter* out) {
                for (const auto& [name, value] : choices) {
                  if (value == Look(where, config)) *out << name;
                }
              }};
}

Status CheckBridge(const std::string& name) {
  // Linux's IFNAMSIZ is 16 with the terminator.
  if (name.size() > 15 || name == "." || name == ".." || name.find_first_of("/ :\t\n") != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected an interface name of at most 15 characters, not \"", name, "\""));
  }
  return absl::OkStatus();
}

Status CheckSubnet(const std::string& subnet) {
  const std::size_t slash = subnet.find('/');
  int bits = -1;
  if (slash != std::string::npos) {
    const char* end = subnet.data() + subnet.size();
    const auto [stop, error] = std::from_chars(subnet.data() + slash + 1, end, bits);
    if (error != std::errc() || stop != end) bits = -1;
  }
  int octets = 0;
  int value = -1;
  bool good = bits >= 8 && bits <= 30;
  for (std::size_t i = 0; good && i <= slash; ++i) {
    if (i == slash || subnet[i] == '.') {
      good = value >= 0 && value <= 255;
      value = -1;
      ++octets;
    } else {
      good = subnet[i] >= '0' && subnet[i] <= '9' && value <= 255;
      value = (value < 0 ? 0 : value * 10) + (subnet[i] - '0');
    }
  }
  if (good && octets == 4) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("expected an IPv4 subnet of 8 to 30 bits such as 10.88.0.0/16, not \"", subnet, "\""));
}

Status CheckStreamingAddress(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  std::array<unsigned char, sizeof(in6_addr)> binary{};
  std::uint32_t port = 0;
  if (colon != std::string::npos && inet_pton(bracketed ? AF_INET6 : AF_INET, host.c_str(), binary.data()) == 1 &&
      absl::SimpleAtoi(address.substr(colon + 1), &port) && port <= 65535) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("expected IP:PORT or [IP]:PORT, not \"", address, "\""));
}

Status CheckListen(const std::string& listen) {
  return SocketPath(listen).status();
}

// Whether it is a reference is for the images' own parser to say, when huskd starts.
Status CheckPinned(const std::string& reference) {
  if (!reference.empty() && reference.find_first_of(" \t\n") == std::string::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("expected an image reference, not \"", reference, "\""));
}

void AddLaneFields(std::vector<ConfigField>* fields) {
  constexpr std::uint32_t kMostWorkers = 4096;
  constexpr std::uint32_t kLongestQueue = 1'000'000;
  for (const LaneClass lane_class : kLaneClasses) {
    const auto index = static_cast<std::size_t>(lane_class);
    const std::string section = absl::StrCat("lanes.", View(LaneName(lane_class)));
    fields->push_back(NumberField(section + ".workers", 1, kMostWorkers, [index](Config& config) -> std::uint32_t& {
      return config.lanes.at(index).workers;
    }));
    fields->push_back(NumberField(section + ".queue", 0, kLongestQueue,
                                  [index](Config& config) -> std::uint32_t& { return config.lanes.at(index).queue; }));
  }
}

std::vector<ConfigField> MakeFields() {
  using Vm = Config::VirtualMachine;
  const auto text = [](std::string Config::* member) {
    return [member](Config& config) -> std::string& { return config.*member; };
  };
  const auto vm_text = [](std::string Vm::* member) {
    return [member](Config& config) -> std::string& { return config.vm.*member; };
  };
  const auto vm_number = [](std::uint32_t Vm::* member) {
    return [member](Config& config) -> std::uint32_t& { return config.vm.*member; };
  };
  const auto vm_size = [](std::uint64_t Vm::* member) {
    return [member](Config& config) -> std::uint64_t& { return config.vm.*member; };
  };
  const auto network_text = [](std::string Config::Network::* member) {
    return [member](Config& config) -> std::string& { return config.network.*member; };
  };
  const auto streaming_text = [](std::string Config::Streaming::* member) {
    return [member](Config& config) -> std::string& { return config.streaming.*member; };
  };
  constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;
  constexpr std::uint32_t kMostVcpus = 1024;
  constexpr std::uint32_t kLastUser = std::numeric_limits<std::int32_t>::max();

  std::vector<ConfigField> fields = {
      PathField("root", text(&Config::root)),
      PathField("state", text(&Config::state)),
      TextField("listen", text(&Config::listen), CheckListen),
      ChoiceField<std::string>(
          "log.level",
          {{"trace", "trace"}, {"debug", "debug"}, {"info", "info"}, {"warning", "warning"}, {"error", "error"}},
          text(&Config::log_level)),
      PathField("vm.qemu", vm_text(&Vm::qemu)),
      OptionalPathField("vm.launcher", vm_text(&Vm::launcher)),
      OptionalPathField("vm.kernel", vm_text(&Vm::kernel)),
      OptionalPathField("vm.initrd", vm_text(&Vm::initrd)),
      ChoiceField<AcceleratorChoice>(
          "vm.accelerator",
          {{"auto", AcceleratorChoice::kAuto}, {"kvm", AcceleratorChoice::kKvm}, {"tcg", AcceleratorChoice::kTcg}},
          [](Config& config) -> AcceleratorChoice& { return config.vm.accelerator; }),
      NumberField("vm.default_vcpus", 1, kMostVcpus, vm_number(&Vm::default_vcpus)),
      NumberField("vm.maximum_vcpus", 0, kMostVcpus, vm_number(&Vm::maximum_vcpus)),
      NumberField("vm.unlimited_cpu_percent", 0, 100, vm_number(&Vm::unlimited_cpu_percent)),
      SizeField("vm.default_memory", 128 * kMebibyte, false, vm_size(&Vm::default_memory)),
      SizeField("vm.maximum_memory", 128 * kMebibyte, true, vm_size(&Vm::maximum_memory)),
      SizeField("vm.unlimited_memory", 128 * kMebibyte, true, vm_size(&Vm::unlimited_memory)),
      SizeField("vm.scratch_size", 64 * kMebibyte, false, vm_size(&Vm::scratch_size)),
      NumberField("vm.first_user", 1000, kLastUser, vm_number(&Vm::first_user)),
      NumberField("vm.user_count", 1, 10'000'000, vm_number(&Vm::user_count)),
      ListField("vm.allowed_annotations", "annotations of pods, such as [husk.dev/default-memory]", true,
                CheckPodAnnotation,
                [](Config& config) -> std::vector<std::string>& { return config.vm.allowed_annotations; }),
      PathField("network.cni_configuration_directory", network_text(&Config::Network::configuration_directory)),
      ListField("network.cni_plugin_directories", "absolute paths, such as [/opt/cni/bin]", false, CheckPath,
                [](Config& config) -> std::vector<std::string>& { return config.network.plugin_directories; }),
      TextField("network.default_bridge", network_text(&Config::Network::default_bridge), CheckBridge),
      TextField("network.default_subnet", network_text(&Config::Network::default_subnet), CheckSubnet),
      ChoiceField<bool>("network.filter_sources", {{"true", true}, {"false", false}},
                        [](Config& config) -> bool& { return config.network.filter_sources; }),
      TextField("streaming.address", streaming_text(&Config::Streaming::address), CheckStreamingAddress),
      OptionalPathField("streaming.certificate", streaming_text(&Config::Streaming::certificate)),
      OptionalPathField("streaming.key", streaming_text(&Config::Streaming::key)),
      NumberField("images.parallel_layers", 1, 64,
                  [](Config& config) -> std::uint32_t& { return config.parallel_layers; }),
      ListField("images.pinned", "image references; one may end with * for all that begin so", true, CheckPinned,
                [](Config& config) -> std::vector<std::string>& { return config.pinned_images; }),
      OptionalPathField("images.registry_hosts", text(&Config::registry_hosts)),
      ListField("cdi.directories", "absolute paths, such as [/etc/cdi]", true, CheckPath,
                [](Config& config) -> std::vector<std::string>& { return config.cdi_directories; }),
      ChoiceField<CgroupDriver>("cgroup.driver",
                                {{"cgroupfs", CgroupDriver::kCgroupfs}, {"systemd", CgroupDriver::kSystemd}},
                                [](Config& config) -> CgroupDriver& { return config.cgroup_driver; }),
      PathField("cgroup.root", text(&Config::cgroup_root)),
      TextField("metrics.address", text(&Config::metrics_address),
                [](const std::string& address) {
                  return address.empty() ? absl::OkStatus() : ParseNetworkAddress(address).status();
                }),
  };
  AddLaneFields(&fields);
  return fields;
}

}  // namespace

const std::vector<ConfigField>& ConfigFields() {
  static const std::vector<ConfigField> fields = MakeFields();
  return fields;
}

StatusOr<std::uint64_t> ParseByteSize(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  std::uint64_t factor = unit.empty() ? 1 : 0;
  for (const auto& [name, size] : kByteUnits) {
    if (unit == name) factor = size;
  }
  if (error != std::errc() || factor == 0 || value > std::numeric_limits<std::int64_t>::max() / factor) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a size such as 256Mi, 8Gi or a number of bytes, not \"", View(text), "\""));
  }
  return value * factor;
}

std::string FormatByteSize(std::uint64_t bytes) {
  if (bytes == 0) return "0";
  for (const auto& [name, size] : kByteUnits) {
    if (bytes % size == 0) return absl::StrCat(bytes / size, View(name));
  }
  return absl::StrCat(bytes);
}

std::string NearestName(std::string_view name, const std::vector<std::string>& candidates) {
  std::string nearest;
  std::size_t best = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    // Levenshtein's distance, one row at a time.
    std::vector<std::size_t> row(candidate.size() + 1);
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= name.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i;
      for (std::size_t j = 1; j < row.size(); ++j) {
        const std::size_t replaced = diagonal + (name[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() < best) {
      best = row.back();
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace husk::cri
