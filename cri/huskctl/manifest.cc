#include "cri/huskctl/manifest.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "cri/huskctl/quantity.h"

namespace husk::huskctl {

namespace api = ::runtime::v1;

namespace {

constexpr std::int64_t kCpuPeriod = 100'000;

// What the kubelet hides from unprivileged containers.
constexpr const char* kMaskedPaths[] = {"/proc/asound",     "/proc/acpi",        "/proc/interrupts",
                                        "/proc/kcore",      "/proc/keys",        "/proc/latency_stats",
                                        "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
                                        "/proc/scsi",       "/sys/firmware",     "/sys/devices/virtual/powercap"};
constexpr const char* kReadonlyPaths[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};

// Reads one manifest; a method per kind of object, each of which is a table of its fields.
class Reader {
 public:
  Reader(std::string name, Manifest* out) : name_(std::move(name)), out_(out) {}

  Status Document(const YAML::Node& node);
  void FinishResources();

 private:
  using FieldReader = std::function<Status(const YAML::Node&)>;
  using Fields = std::map<std::string, FieldReader>;

  [[nodiscard]] Status ErrorAt(const YAML::Mark& mark, const std::string& message) const {
    return absl::InvalidArgumentError(absl::StrCat(name_, ":", mark.line + 1, ":", mark.column + 1, ": ", message));
  }
  [[nodiscard]] Status ErrorAt(const YAML::Node& node, const std::string& message) const {
    return ErrorAt(node.Mark(), message);
  }

  // Each key by its reader; unknown ones become warnings, those in `refused` errors.
  Status Object(const YAML::Node& node, const std::string& path, const Fields& fields,
                const std::set<std::string>& refused = {});
  Status EachOf(const YAML::Node& node, const std::string& path,
                const std::function<Status(const YAML::Node&, const std::string& path)>& read) const;

  FieldReader Text(const std::string& path, const std::function<void(const std::string&)>& set) const;
  FieldReader Bool(const std::string& path, const std::function<void(bool)>& set) const;
  FieldReader Int(const std::string& path, std::int64_t minimum, std::int64_t maximum,
                  const std::function<void(std::int64_t)>& set) const;
  FieldReader Strings(const std::string& path, const std::function<void(const std::string&)>& add) const;
  FieldReader StringMap(const std::string& path, google::protobuf::Map<std::string, std::string>* out) const;
  FieldReader Quantity(const std::string& path, StatusOr<std::int64_t> (*parse)(const std::string&),
                       std::int64_t* out) const;
  // An amount of pages of that size.
  FieldReader HugePages(const std::string& path, const std::string& size, std::int64_t* out) const;
  static FieldReader Nothing() {
    return [](const YAML::Node&) { return absl::OkStatus(); };
  }

  // What limits or requests say; 0: nothing.
  struct Amounts {
    std::int64_t milli_cpus = 0;
    std::int64_t memory_bytes = 0;
    std::map<std::string, std::int64_t> huge_pages;  // bytes, by the size of a page: "2Mi"
  };
  Status ReadAmounts(const YAML::Node& node, const std::string& path, Amounts* out);

  Status Metadata(const YAML::Node& node);
  Status Spec(const YAML::Node& node);
  Status DnsConfig(const YAML::Node& node);
  Status PodSecurity(const YAML::Node& node);
  Status Container(const YAML::Node& node, const std::string& path);
  Status Environment(const YAML::Node& node, const std::string& path, api::ContainerConfig* config);
  Status Port(const YAML::Node& node, const std::string& path);
  Status Resources(const YAML::Node& node, const std::string& path, api::LinuxContainerResources* out);
  Status Security(const YAML::Node& node, const std::string& path, api::LinuxContainerSecurityContext* out);
  Status Seccomp(const YAML::Node& node, const std::string& path, api::SecurityProfile* out);

  const std::string name_;
  Manifest* const out_;
  api::LinuxContainerSecurityContext pod_defaults_;
};

Status Reader::Object(const YAML::Node& node, const std::string& path, const Fields& fields,
                      const std::set<std::string>& refused) {
  if (node.IsNull()) return absl::OkStatus();
  if (!node.IsMap()) return ErrorAt(node, absl::StrCat(path, ": expected keys and values"));
  std::set<std::string> seen;
  for (const auto& entry : node) {
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "?";
    const std::string full = path.empty() ? key : absl::StrCat(path, ".", key);
    if (!seen.insert(key).second) return ErrorAt(entry.first, absl::StrCat(full, " is given twice"));
    if (refused.contains(key)) return ErrorAt(entry.first, absl::StrCat(full, " is not supported by huskctl"));
    const auto field = fields.find(key);
    if (field == fields.end()) {
      const YAML::Mark mark = entry.first.Mark();
      out_->warnings.push_back(absl::StrCat(name_, ":", mark.line + 1, ":", mark.column + 1, ": ", full,
                                            " is unknown to huskctl and ignored"));
      continue;
    }
    HUSK_RETURN_IF_ERROR(field->second(entry.second));
  }
  return absl::OkStatus();
}

Status Reader::EachOf(const YAML::Node& node, const std::string& path,
                      const std::function<Status(const YAML::Node&, const std::string& path)>& read) const {
  if (node.IsNull()) return absl::OkStatus();
  if (!node.IsSequence()) return ErrorAt(node, absl::StrCat(path, ": expected a list"));
  for (std::size_t i = 0; i < node.size(); ++i) HUSK_RETURN_IF_ERROR(read(node[i], absl::StrCat(path, "[", i, "]")));
  return absl::OkStatus();
}

Reader::FieldReader Reader::Text(const std::string& path, const std::function<void(const std::string&)>& set) const {
  return [this, path, set](const YAML::Node& node) -> Status {
    if (!node.IsScalar()) return ErrorAt(node, absl::StrCat(path, ": expected a string"));
    set(node.Scalar());
    return absl::OkStatus();
  };
}

Reader::FieldReader Reader::Bool(const std::string& path, const std::function<void(bool)>& set) const {
  return [this, path, set](const YAML::Node& node) -> Status {
    if (!node.IsScalar() || (node.Scalar() != "true" && node.Scalar() != "false")) {
      return ErrorAt(node, absl::StrCat(path, ": expected true or false"));
    }
    set(node.Scalar() == "true");
    return absl::OkStatus();
  };
}

Reader::FieldReader Reader::Int(const std::string& path, std::int64_t minimum, std::int64_t maximum,
                                const std::function<void(std::int64_t)>& set) const {
  return [this, path, minimum, maximum, set](const YAML::Node& node) -> Status {
    std::int64_t value = 0;
    if (!node.IsScalar() || !absl::SimpleAtoi(node.Scalar(), &value) || value < minimum || value > maximum) {
      return ErrorAt(node, absl::StrCat(path, ": expected a number from ", minimum, " to ", maximum));
    }
    set(value);
    return absl::OkStatus();
  };
}

Reader::FieldReader Reader::Strings(const std::string& path, const std::function<void(const std::string&)>& add) const {
  return [this, path, add](const YAML::Node& node) {
    return EachOf(node, path, [&](const YAML::Node& item, const std::string& item_path) -> Status {
      if (!item.IsScalar()) return ErrorAt(item, absl::StrCat(item_path, ": expected a string"));
      add(item.Scalar());
      return absl::OkStatus();
    });
  };
}

Reader::FieldReader Reader::StringMap(const std::string& path,
                                      google::protobuf::Map<std::string, std::string>* out) const {
  return [this, path, out](const YAML::Node& node) -> Status {
    if (node.IsNull()) return absl::OkStatus();
    if (!node.IsMap()) return ErrorAt(node, absl::StrCat(path, ": expected keys and values"));
    for (const auto& entry : node) {
      if (!entry.second.IsScalar()) return ErrorAt(entry.second, absl::StrCat(path, ": expected strings as values"));
      (*out)[entry.first.Scalar()] = entry.second.Scalar();
    }
    return absl::OkStatus();
  };
}

Status Reader::Document(const YAML::Node& node) {
  if (!node.IsMap()) return ErrorAt(YAML::Mark(), "expected a Pod manifest (apiVersion: v1, kind: Pod, ...)");
  if (!node["kind"] || !node["kind"].IsScalar() || node["kind"].Scalar() != "Pod") {
    return ErrorAt(node["kind"] ? node["kind"].Mark() : node.Mark(), "kind: huskctl runs manifests of kind Pod");
  }
  if (!node["spec"]) return ErrorAt(node, "spec is missing");
  return Object(node, "",
                {{"apiVersion",
                  [this](const YAML::Node& version) {
                    return version.IsScalar() && version.Scalar() == "v1"
                               ? absl::OkStatus()
                               : ErrorAt(version, "apiVersion: a Pod's version is v1");
                  }},
                 {"kind", Nothing()},
                 {"metadata", [this](const YAML::Node& metadata) { return Metadata(metadata); }},
                 {"spec", [this](const YAML::Node& spec) { return Spec(spec); }},
                 {"status", Nothing()}});
}

Status Reader::Metadata(const YAML::Node& node) {
  api::PodSandboxConfig* pod = &out_->pod;
  auto* metadata = pod->mutable_metadata();
  return Object(
      node, "metadata",
      {{"name", Text("metadata.name", [=](const std::string& name) { metadata->set_name(name); })},
       {"namespace", Text("metadata.namespace", [=](const std::string& name) { metadata->set_namespace_(name); })},
       {"uid", Text("metadata.uid", [=](const std::string& uid) { metadata->set_uid(uid); })},
       {"labels", StringMap("metadata.labels", pod->mutable_labels())},
       {"annotations", StringMap("metadata.annotations", pod->mutable_annotations())},
       {"creationTimestamp", Nothing()}});
}

Status Reader::Spec(const YAML::Node& node) {
  api::PodSandboxConfig* pod = &out_->pod;
  auto* namespaces = pod->mutable_linux()->mutable_security_context()->mutable_namespace_options();
  // Kubernetes' default; the CRI's own, POD, means shareProcessNamespace.
  namespaces->set_pid(api::CONTAINER);
  const auto host = [this](const char* path, const std::function<void()>& set) {
    return Bool(path, [set](bool wanted) {
      if (wanted) set();
    });
  };
  // Containers inherit from the pod's securityContext, wherever it stands.
  if (node.IsMap() && node["securityContext"]) HUSK_RETURN_IF_ERROR(PodSecurity(node["securityContext"]));
  HUSK_RETURN_IF_ERROR(Object(
      node, "spec",
      {{"containers",
        [this](const YAML::Node& list) {
          return EachOf(list, "spec.containers",
                        [this](const YAML::Node& item, const std::string& path) { return Container(item, path); });
        }},
       {"hostname", Text("spec.hostname", [=](const std::string& name) { pod->set_hostname(name); })},
       {"hostNetwork", host("spec.hostNetwork", [=] { namespaces->set_network(api::NODE); })},
       {"hostPID", host("spec.hostPID", [=] { namespaces->set_pid(api::NODE); })},
       {"hostIPC", host("spec.hostIPC", [=] { namespaces->set_ipc(api::NODE); })},
       {"shareProcessNamespace", host("spec.shareProcessNamespace", [=] { namespaces->set_pid(api::POD); })},
       {"dnsConfig", [this](const YAML::Node& dns) { return DnsConfig(dns); }},
       {"securityContext", Nothing()},
       {"terminationGracePeriodSeconds", Nothing()},
       {"enableServiceLinks", Nothing()},
       {"automountServiceAccountToken", Nothing()},
       {"restartPolicy", Text("spec.restartPolicy",
                              [this](const std::string& policy) {
                                if (policy != "Never") {
                                  out_->warnings.push_back(absl::StrCat(
                                      name_,
                                      ": spec.restartPolicy: huskctl starts each container once, as Never does"));
                                }
                              })}},
      {"volumes", "initContainers", "ephemeralContainers", "runtimeClassName"}));
  if (out_->containers.empty()) return ErrorAt(node, "spec.containers is missing or empty");
  for (auto& container : out_->containers) {
    *container.config.mutable_linux()->mutable_security_context()->mutable_namespace_options() = *namespaces;
  }
  return absl::OkStatus();
}

Status Reader::DnsConfig(const YAML::Node& node) {
  auto* dns = out_->pod.mutable_dns_config();
  return Object(
      node, "spec.dnsConfig",
      {{"nameservers",
        Strings("spec.dnsConfig.nameservers", [=](const std::string& server) { dns->add_servers(server); })},
       {"searches", Strings("spec.dnsConfig.searches", [=](const std::string& search) { dns->add_searches(search); })},
       {"options", [this, dns](const YAML::Node& list) {
          return EachOf(list, "spec.dnsConfig.options", [&](const YAML::Node& item, const std::string& path) {
            std::string option;
            std::string value;
            HUSK_RETURN_IF_ERROR(
                Object(item, path,
                       {{"name", Text(path + ".name", [&](const std::string& text) { option = text; })},
                        {"value", Text(path + ".value", [&](const std::string& text) { value = text; })}}));
            dns->add_options(value.empty() ? option : absl::StrCat(option, ":", value));
            return absl::OkStatus();
          });
        }}});
}

Status Reader::PodSecurity(const YAML::Node& node) {
  const std::string path = "spec.securityContext";
  constexpr std::int64_t kLastId = INT32_MAX;
  auto* sysctls = out_->pod.mutable_linux()->mutable_sysctls();
  api::LinuxContainerSecurityContext* defaults = &pod_defaults_;
  return Object(
      node, path,
      {{"runAsUser",
        Int(path + ".runAsUser", 0, kLastId, [=](std::int64_t id) { defaults->mutable_run_as_user()->set_value(id); })},
       {"runAsGroup", Int(path + ".runAsGroup", 0, kLastId,
                          [=](std::int64_t id) { defaults->mutable_run_as_group()->set_value(id); })},
       {"supplementalGroups",
        [this, path, defaults](const YAML::Node& list) {
          return EachOf(list, path + ".supplementalGroups", [&](const YAML::Node& item, const std::string& item_path) {
            return Int(item_path, 0, kLastId, [&](std::int64_t id) { defaults->add_supplemental_groups(id); })(item);
          });
        }},
       {"sysctls",
        [this, path, sysctls](const YAML::Node& list) {
          return EachOf(list, path + ".sysctls", [&](const YAML::Node& item, const std::string& item_path) {
            std::string name;
            std::string value;
            HUSK_RETURN_IF_ERROR(Object(item, item_path,
                                        {{"name", Text(item_path, [&](const std::string& text) { name = text; })},
                                         {"value", Text(item_path, [&](const std::string& text) { value = text; })}}));
            (*sysctls)[name] = value;
            return absl::OkStatus();
          });
        }},
       {"seccompProfile",
        [this, path, defaults](const YAML::Node& profile) {
          return Seccomp(profile, path + ".seccompProfile", defaults->mutable_seccomp());
        }},
       {"supplementalGroupsPolicy",
        [this, path, defaults](const YAML::Node& policy) -> Status {
          api::SupplementalGroupsPolicy value = api::Merge;
          if (!policy.IsScalar() || !api::SupplementalGroupsPolicy_Parse(policy.Scalar(), &value)) {
            return ErrorAt(policy, path + ".supplementalGroupsPolicy: expected Merge or Strict");
          }
          defaults->set_supplemental_groups_policy(value);
          return absl::OkStatus();
        }}},
      {"appArmorProfile", "seLinuxOptions"});
}

// A Localhost profile is named below the kubelet's own directory for them, here as there.
Status Reader::Seccomp(const YAML::Node& node, const std::string& path, api::SecurityProfile* out) {
  constexpr const char* kRoot = "/var/lib/kubelet/seccomp/";
  std::string type;
  std::string file;
  HUSK_RETURN_IF_ERROR(
      Object(node, path,
             {{"type", Text(path + ".type", [&](const std::string& text) { type = text; })},
              {"localhostProfile", Text(path + ".localhostProfile", [&](const std::string& text) { file = text; })}}));
  api::SecurityProfile::ProfileType value = api::SecurityProfile::RuntimeDefault;
  if (!api::SecurityProfile::ProfileType_Parse(type, &value)) {
    return ErrorAt(node, path + ".type: expected RuntimeDefault, Unconfined or Localhost");
  }
  if ((value == api::SecurityProfile::Localhost) == file.empty()) {
    return ErrorAt(node, path + ".localhostProfile: is for the type Localhost, which needs it");
  }
  out->set_profile_type(value);
  if (!file.empty()) out->set_localhost_ref(kRoot + file);
  return absl::OkStatus();
}

Status Reader::Container(const YAML::Node& node, const std::string& path) {
  ManifestContainer* container = &out_->containers.emplace_back();
  api::ContainerConfig* config = &container->config;
  auto* security = config->mutable_linux()->mutable_security_context();
  *security = pod_defaults_;
  HUSK_RETURN_IF_ERROR(Object(
      node, path,
      {{"name", Text(path + ".name", [=](const std::string& name) { config->mutable_metadata()->set_name(name); })},
       {"image", Text(path + ".image",
                      [=](const std::string& image) {
                        config->mutable_image()->set_image(image);
                        config->mutable_image()->set_user_specified_image(image);
                      })},
       {"imagePullPolicy", Text(path + ".imagePullPolicy",
                                [=](const std::string& policy) {
                                  container->always_pull = policy == "Always";
                                  container->never_pull = policy == "Never";
                                })},
       {"command", Strings(path + ".command", [=](const std::string& word) { config->add_command(word); })},
       {"args", Strings(path + ".args", [=](const std::string& word) { config->add_args(word); })},
       {"workingDir", Text(path + ".workingDir", [=](const std::string& dir) { config->set_working_dir(dir); })},
       {"env", [this, path, config](const YAML::Node& list) { return Environment(list, path + ".env", config); }},
       {"ports",
        [this, path](const YAML::Node& list) {
          return EachOf(list, path + ".ports",
                        [this](const YAML::Node& item, const std::string& item_path) { return Port(item, item_path); });
        }},
       {"resources",
        [this, path, config](const YAML::Node& resources) {
          return Resources(resources, path + ".resources", config->mutable_linux()->mutable_resources());
        }},
       {"securityContext",
        [this, path, security](const YAML::Node& context) {
          return Security(context, path + ".securityContext", security);
        }},
       {"stdin", Bool(path + ".stdin", [=](bool on) { config->set_stdin(on); })},
       {"stdinOnce", Bool(path + ".stdinOnce", [=](bool on) { config->set_stdin_once(on); })},
       {"tty", Bool(path + ".tty", [=](bool on) { config->set_tty(on); })}},
      {"volumeMounts", "volumeDevices", "envFrom", "lifecycle"}));
  const std::string name = config->metadata().name();
  if (name.empty()) return ErrorAt(node, path + ".name is missing");
  if (name.find('/') != std::string::npos) return ErrorAt(node, path + ".name has a slash");
  if (config->image().image().empty()) return ErrorAt(node, path + ".image is missing");
  config->set_log_path(name + "/0.log");
  (*config->mutable_labels())["io.kubernetes.container.name"] = name;
  if (!security->privileged()) {
    for (const char* masked : kMaskedPaths) security->add_masked_paths(masked);
    for (const char* readonly : kReadonlyPaths) security->add_readonly_paths(readonly);
  }
  return absl::OkStatus();
}

Status Reader::Environment(const YAML::Node& node, const std::string& path, api::ContainerConfig* config) {
  return EachOf(node, path, [&](const YAML::Node& item, const std::string& item_path) -> Status {
    api::KeyValue* variable = config->add_envs();
    HUSK_RETURN_IF_ERROR(
        Object(item, item_path,
               {{"name", Text(item_path + ".name", [=](const std::string& name) { variable->set_key(name); })},
                {"value", Text(item_path + ".value", [=](const std::string& value) { variable->set_value(value); })}},
               {"valueFrom"}));
    if (variable->key().empty()) return ErrorAt(item, item_path + ".name is missing");
    return absl::OkStatus();
  });
}

Status Reader::Port(const YAML::Node& node, const std::string& path) {
  constexpr std::int64_t kLastPort = 65535;
  api::PortMapping mapping;
  Status bad_protocol = absl::OkStatus();
  HUSK_RETURN_IF_ERROR(Object(
      node, path,
      {{"name", Nothing()},
       {"containerPort", Int(path + ".containerPort", 1, kLastPort,
                             [&](std::int64_t port) { mapping.set_container_port(static_cast<std::int32_t>(port)); })},
       {"hostPort", Int(path + ".hostPort", 1, kLastPort,
                        [&](std::int64_t port) { mapping.set_host_port(static_cast<std::int32_t>(port)); })},
       {"hostIP", Text(path + ".hostIP", [&](const std::string& ip) { mapping.set_host_ip(ip); })},
       {"protocol", Text(path + ".protocol", [&](const std::string& name) {
          api::Protocol protocol = api::TCP;
          if (!api::Protocol_Parse(name, &protocol)) {
            bad_protocol = ErrorAt(node, absl::StrCat(path, ".protocol: \"", name, "\" is none of TCP, UDP, SCTP"));
          }
          mapping.set_protocol(protocol);
        })}}));
  HUSK_RETURN_IF_ERROR(bad_protocol);
  *out_->pod.add_port_mappings() = mapping;
  return absl::OkStatus();
}

Reader::FieldReader Reader::Quantity(const std::string& path, StatusOr<std::int64_t> (*parse)(const std::string&),
                                     std::int64_t* out) const {
  return [this, path, parse, out](const YAML::Node& value) -> Status {
    const StatusOr<std::int64_t> parsed = parse(value.IsScalar() ? value.Scalar() : "");
    if (!parsed.ok()) return ErrorAt(value, absl::StrCat(path, ": ", parsed.status().message()));
    *out = *parsed;
    return absl::OkStatus();
  };
}

Reader::FieldReader Reader::HugePages(const std::string& path, const std::string& size, std::int64_t* out) const {
  return [this, path, size, out](const YAML::Node& value) -> Status {
    const StatusOr<std::int64_t> page = ParseUnits(size);
    if (!page.ok() || *page <= 0) return ErrorAt(value, absl::StrCat(path, ": \"", size, "\" is no size of a page"));
    HUSK_RETURN_IF_ERROR(Quantity(path, &ParseUnits, out)(value));
    if (*out >= 0 && *out % *page == 0) return absl::OkStatus();
    return ErrorAt(value, absl::StrCat(path, ": ", value.Scalar(), " is no number of pages of ", size));
  };
}

Status Reader::ReadAmounts(const YAML::Node& node, const std::string& path, Amounts* out) {
  constexpr absl::string_view kHugePages = "hugepages-";
  Fields fields = {{"cpu", Quantity(path + ".cpu", &ParseMilli, &out->milli_cpus)},
                   {"memory", Quantity(path + ".memory", &ParseUnits, &out->memory_bytes)}};
  if (node.IsMap()) {
    for (const auto& entry : node) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
      if (!absl::StartsWith(key, kHugePages)) continue;
      const std::string size = key.substr(kHugePages.size());
      fields[key] = HugePages(absl::StrCat(path, ".", key), size, &out->huge_pages[size]);
    }
  }
  return Object(node, path, fields);
}

Status Reader::Resources(const YAML::Node& node, const std::string& path, api::LinuxContainerResources* out) {
  Amounts limits;
  Amounts requests;
  HUSK_RETURN_IF_ERROR(Object(
      node, path,
      {{"limits", [&](const YAML::Node& values) { return ReadAmounts(values, path + ".limits", &limits); }},
       {"requests", [&](const YAML::Node& values) { return ReadAmounts(values, path + ".requests", &requests); }}}));
  if (limits.memory_bytes != 0) out->set_memory_limit_in_bytes(limits.memory_bytes);
  // As the kubelet: a request missing is the limit; 1024 shares a CPU, at least 2; at least a millisecond of quota.
  const std::int64_t request = requests.milli_cpus == 0 ? limits.milli_cpus : requests.milli_cpus;
  if (request != 0) out->set_cpu_shares(std::max<std::int64_t>(2, request * 1024 / 1000));
  if (limits.milli_cpus != 0) {
    out->set_cpu_period(kCpuPeriod);
    out->set_cpu_quota(std::max<std::int64_t>(1000, limits.milli_cpus * kCpuPeriod / 1000));
  }
  for (const auto& [size, bytes] : requests.huge_pages) {
    const auto limit = limits.huge_pages.find(size);
    if (limit != limits.huge_pages.end() && limit->second == bytes) continue;
    return ErrorAt(node,
                   absl::StrCat(path, ".requests.hugepages-", size, " must be the limit: huge pages are not shared"));
  }
  for (const auto& [size, bytes] : limits.huge_pages) {
    api::HugepageLimit* const limit = out->add_hugepage_limits();
    limit->set_page_size(size);
    limit->set_limit(static_cast<std::uint64_t>(bytes));
  }
  return absl::OkStatus();
}

Status Reader::Security(const YAML::Node& node, const std::string& path, api::LinuxContainerSecurityContext* out) {
  constexpr std::int64_t kLastId = INT32_MAX;
  return Object(
      node, path,
      {{"privileged", Bool(path + ".privileged", [=](bool on) { out->set_privileged(on); })},
       {"runAsUser",
        Int(path + ".runAsUser", 0, kLastId, [=](std::int64_t id) { out->mutable_run_as_user()->set_value(id); })},
       {"runAsGroup",
        Int(path + ".runAsGroup", 0, kLastId, [=](std::int64_t id) { out->mutable_run_as_group()->set_value(id); })},
       {"readOnlyRootFilesystem",
        Bool(path + ".readOnlyRootFilesystem", [=](bool on) { out->set_readonly_rootfs(on); })},
       {"allowPrivilegeEscalation",
        Bool(path + ".allowPrivilegeEscalation", [=](bool on) { out->set_no_new_privs(!on); })},
       {"capabilities",
        [this, path, out](const YAML::Node& capabilities) {
          auto* wanted = out->mutable_capabilities();
          return Object(capabilities, path + ".capabilities",
                        {{"add", Strings(path + ".capabilities.add",
                                         [=](const std::string& name) { wanted->add_add_capabilities(name); })},
                         {"drop", Strings(path + ".capabilities.drop",
                                          [=](const std::string& name) { wanted->add_drop_capabilities(name); })}});
        }},
       {"seccompProfile",
        [this, path, out](const YAML::Node& profile) {
          return Seccomp(profile, path + ".seccompProfile", out->mutable_seccomp());
        }}},
      {"appArmorProfile", "seLinuxOptions", "procMount"});
}

// The pod's resources are its containers' together, as the kubelet computes them; the VM is sized by them. A container
// without a limit leaves the pod without one.
void Reader::FinishResources() {
  api::LinuxContainerResources total;
  bool all_have_quota = true;
  bool all_have_memory = true;
  for (const ManifestContainer& container : out_->containers) {
    const api::LinuxContainerResources& own = container.config.linux().resources();
    total.set_cpu_shares(total.cpu_shares() + own.cpu_shares());
    total.set_cpu_quota(total.cpu_quota() + own.cpu_quota());
    total.set_memory_limit_in_bytes(total.memory_limit_in_bytes() + own.memory_limit_in_bytes());
    all_have_quota = all_have_quota && own.cpu_quota() != 0;
    all_have_memory = all_have_memory && own.memory_limit_in_bytes() != 0;
  }
  if (!all_have_quota) total.clear_cpu_quota();
  if (all_have_quota) total.set_cpu_period(kCpuPeriod);
  if (!all_have_memory) total.clear_memory_limit_in_bytes();
  *out_->pod.mutable_linux()->mutable_resources() = total;
}

}  // namespace

StatusOr<Manifest> ParseManifest(const std::string& text, const std::string& name, const std::string& uid,
                                 const std::string& log_directory) {
  Manifest manifest;
  Reader reader(name, &manifest);
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.size() != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": expected one document, a Pod; there are ", documents.size()));
    }
    HUSK_RETURN_IF_ERROR(reader.Document(documents.front()));
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ":", error.mark.line + 1, ":", error.mark.column + 1, ": ", error.msg));
  }
  reader.FinishResources();
  std::set<std::string> names;
  for (const ManifestContainer& container : manifest.containers) {
    if (!names.insert(container.config.metadata().name()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": two containers are called ", container.config.metadata().name()));
    }
  }
  api::PodSandboxMetadata* metadata = manifest.pod.mutable_metadata();
  if (metadata->name().empty()) return absl::InvalidArgumentError(absl::StrCat(name, ": metadata.name is missing"));
  if (metadata->namespace_().empty()) metadata->set_namespace_("default");
  if (metadata->uid().empty()) metadata->set_uid(uid);
  if (manifest.pod.hostname().empty()) manifest.pod.set_hostname(metadata->name());
  const std::string directory = absl::StrCat(metadata->namespace_(), "_", metadata->name(), "_", metadata->uid());
  if (directory.find('/') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": metadata: a name has a slash"));
  }
  manifest.pod.set_log_directory(absl::StrCat(log_directory, "/", directory));
  // So that listings by the kubelet's labels find these pods too.
  auto& labels = *manifest.pod.mutable_labels();
  labels["io.kubernetes.pod.name"] = metadata->name();
  labels["io.kubernetes.pod.namespace"] = metadata->namespace_();
  labels["io.kubernetes.pod.uid"] = metadata->uid();
  return manifest;
}

}  // namespace husk::huskctl
