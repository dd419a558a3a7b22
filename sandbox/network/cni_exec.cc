#include "sandbox/network/cni_exec.h"

#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "agent/common/subprocess.h"
#include "sandbox/network/bandwidth.h"
#include "sandbox/network/json.h"

extern char** environ;

namespace husk::sandbox {
namespace {

constexpr auto kPluginLimit = std::chrono::minutes(2);
constexpr std::size_t kMaximumOutput = std::size_t{4} << 20;
constexpr std::size_t kMaximumWords = 500;

bool Exists(const std::string& path) {
  struct stat info{};
  return stat(path.c_str(), &info) == 0;
}

std::vector<std::string> Environment(const std::vector<std::string>& directories, const CniAttachment& attachment,
                                     const std::string& command) {
  std::vector<std::string> environment;
  bool has_path = false;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (absl::StartsWith(*variable, "CNI_")) continue;
    has_path |= absl::StartsWith(*variable, "PATH=");
    environment.emplace_back(*variable);
  }
  // Plugins look for iptables there.
  if (!has_path) environment.emplace_back("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  // At DEL an empty CNI_NETNS says that the namespace is gone already.
  const bool gone = command == "DEL" && !Exists(attachment.namespace_path);
  environment.push_back(absl::StrCat("CNI_COMMAND=", command));
  environment.push_back(absl::StrCat("CNI_CONTAINERID=", attachment.container_id));
  environment.push_back(absl::StrCat("CNI_NETNS=", gone ? "" : attachment.namespace_path));
  environment.push_back(absl::StrCat("CNI_IFNAME=", attachment.interface_name));
  environment.push_back(absl::StrCat("CNI_ARGS=", attachment.arguments));
  environment.push_back(absl::StrCat("CNI_PATH=", absl::StrJoin(directories, ":")));
  return environment;
}

// The plugin's own configuration, with what the runtime adds for this call.
std::string Input(const CniAttachment& attachment, const CniPlugin& plugin, const nlohmann::json& previous) {
  nlohmann::json input = plugin.config;
  input["name"] = attachment.network.name;
  input["cniVersion"] = attachment.network.version;
  input.erase("cniVersions");
  nlohmann::json runtime = nlohmann::json::object();
  const nlohmann::json& capabilities = ObjectMember(plugin.config, "capabilities");
  for (const auto& [capability, value] : attachment.capability_arguments.items()) {
    const auto wanted = capabilities.find(capability);
    if (wanted != capabilities.end() && *wanted == true) runtime[capability] = value;
  }
  input.erase("capabilities");
  if (!runtime.empty()) input["runtimeConfig"] = std::move(runtime);
  if (previous.is_object()) input["prevResult"] = previous;
  return WriteJson(input);
}

std::string Words(const std::string& text) {
  const absl::string_view words = absl::StripAsciiWhitespace(text);
  return absl::CHexEscape(words.substr(0, kMaximumWords));
}

// A plugin that fails prints an object with "msg" and "details"; one that crashes leaves what it wrote to stderr.
std::string Reason(const SubprocessResult& ended) {
  std::string reason = absl::StrCat("exit code ", ended.exit_code);
  const auto error = ParseJsonObject(ended.standard_output);
  if (error.ok() && !StringMember(*error, "msg").empty()) {
    absl::StrAppend(&reason, ": ", Words(StringMember(*error, "msg")));
    const std::string details = StringMember(*error, "details");
    if (!details.empty()) absl::StrAppend(&reason, ": ", Words(details));
  } else if (!ended.standard_error.empty()) {
    absl::StrAppend(&reason, ": ", Words(ended.standard_error));
  }
  return reason;
}

StatusOr<std::string> RunPlugin(const Context& context, const std::vector<std::string>& directories,
                                const CniAttachment& attachment, const CniPlugin& plugin, const std::string& command,
                                const nlohmann::json& previous) {
  HUSK_ASSIGN_OR_RETURN(const std::string path, FindPlugin(directories, plugin.type));
  SubprocessOptions options;
  options.argv = {path};
  options.environment = Environment(directories, attachment, command);
  options.standard_input = Input(attachment, plugin, previous);
  options.maximum_stdout = kMaximumOutput;
  HUSK_ASSIGN_OR_RETURN(auto ended, RunSubprocess(context.WithTimeout(kPluginLimit), options));
  if (ended.exit_code != 0) return absl::InternalError(Reason(ended));
  if (ended.stdout_truncated) return absl::ResourceExhaustedError("it printed more than 4 MiB");
  return std::move(ended.standard_output);
}

std::string Doing(const CniAttachment& attachment, const CniPlugin& plugin, const std::string& command) {
  return absl::StrCat("CNI ", command, " by plugin ", plugin.type, " (", attachment.network.source, ")");
}

bool GoodArgument(const std::string& value) {
  return value.find_first_of(std::string(";=\n\0", 4)) == std::string::npos;
}

nlohmann::json PortMappings(const std::vector<PortMapping>& mappings) {
  nlohmann::json ports = nlohmann::json::array();
  for (const PortMapping& mapping : mappings) {
    if (mapping.host_port == 0) continue;
    const char* protocol = mapping.protocol == Protocol::kTcp   ? "tcp"
                           : mapping.protocol == Protocol::kUdp ? "udp"
                                                                : "sctp";
    ports.push_back({{"hostPort", mapping.host_port},
                     {"containerPort", mapping.container_port},
                     {"protocol", protocol},
                     {"hostIP", mapping.host_ip}});
  }
  return ports;
}

nlohmann::json BandwidthLimits(const Bandwidth& bandwidth) {
  nlohmann::json limits = nlohmann::json::object();
  const auto limit = [&](const std::string& direction, std::uint64_t rate) {
    if (rate == 0) return;
    limits[direction + "Rate"] = rate;
    limits[direction + "Burst"] = BurstOf(rate);
  };
  limit("ingress", bandwidth.ingress_bits_per_second);
  limit("egress", bandwidth.egress_bits_per_second);
  return limits;
}

// By capability: what plugins that have it are told.
nlohmann::json CapabilityArguments(const NetworkRequest& request) {
  nlohmann::json arguments = nlohmann::json::object();
  nlohmann::json ports = PortMappings(request.port_mappings);
  if (!ports.empty()) arguments["portMappings"] = std::move(ports);
  nlohmann::json limits = BandwidthLimits(request.bandwidth);
  if (!limits.empty()) arguments["bandwidth"] = std::move(limits);
  if (!request.dns_servers.empty() || !request.dns_searches.empty() || !request.dns_options.empty()) {
    arguments["dns"] = {
        {"servers", request.dns_servers}, {"searches", request.dns_searches}, {"options", request.dns_options}};
  }
  return arguments;
}

}  // namespace

StatusOr<CniAttachment> NewAttachment(const NetworkRequest& request, const std::string& namespace_path,
                                      CniConfigList network) {
  for (const std::string* value : {&request.name, &request.kubernetes_namespace, &request.uid}) {
    if (!GoodArgument(*value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot be told to CNI plugins: \"", absl::CHexEscape(*value), "\""));
    }
  }
  CniAttachment attachment;
  attachment.container_id = request.pod_id;
  attachment.namespace_path = namespace_path;
  attachment.interface_name = "eth0";
  attachment.arguments =
      absl::StrCat("IgnoreUnknown=1;K8S_POD_NAMESPACE=", request.kubernetes_namespace, ";K8S_POD_NAME=", request.name,
                   ";K8S_POD_INFRA_CONTAINER_ID=", request.pod_id, ";K8S_POD_UID=", request.uid);
  attachment.network = std::move(network);
  attachment.capability_arguments = CapabilityArguments(request);
  return attachment;
}

StatusOr<std::string> FindPlugin(const std::vector<std::string>& directories, const std::string& type) {
  for (const std::string& directory : directories) {
    std::string path = absl::StrCat(directory, "/", type);
    struct stat info{};
    if (stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && access(path.c_str(), X_OK) == 0) return path;
  }
  return absl::NotFoundError(absl::StrCat("CNI plugin ", absl::CHexEscape(type.substr(0, kMaximumWords)), " is not in ",
                                          absl::StrJoin(directories, " or ")));
}

StatusOr<nlohmann::json> AddNetwork(const Context& context, const std::vector<std::string>& directories,
                                    const CniAttachment& attachment) {
  nlohmann::json previous;
  for (const CniPlugin& plugin : attachment.network.plugins) {
    const auto output = RunPlugin(context, directories, attachment, plugin, "ADD", previous);
    if (!output.ok()) return Annotate(output.status(), Doing(attachment, plugin, "ADD"));
    auto result = ParseJsonObject(*output);
    if (!result.ok()) {
      return absl::InternalError(absl::StrCat(Doing(attachment, plugin, "ADD"), ": its result is ",
                                              result.status().message(), ": ", Words(output->substr(0, 100))));
    }
    previous = std::move(*result);
  }
  return previous;
}

Status DeleteNetwork(const Context& context, const std::vector<std::string>& directories,
                     const CniAttachment& attachment) {
  // Version 0.4.0 brought prevResult to DEL.
  const bool with_result = attachment.network.version >= "0.4.0";
  Status first;
  for (auto plugin = attachment.network.plugins.rbegin(); plugin != attachment.network.plugins.rend(); ++plugin) {
    const auto output =
        RunPlugin(context, directories, attachment, *plugin, "DEL", with_result ? attachment.result : nlohmann::json());
    if (!output.ok()) first.Update(Annotate(output.status(), Doing(attachment, *plugin, "DEL")));
  }
  return first;
}

}  // namespace husk::sandbox
