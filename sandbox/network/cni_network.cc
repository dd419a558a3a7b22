#include "sandbox/network/cni_network.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "agent/common/mutex.h"
#include "sandbox/host/pod_id.h"
#include "sandbox/logging.h"
#include "sandbox/network/attachment_cache.h"
#include "sandbox/network/cni_config.h"
#include "sandbox/network/cni_exec.h"
#include "sandbox/network/cni_result.h"
#include "sandbox/network/default_bridge.h"
#include "sandbox/network/json.h"
#include "sandbox/network/namespace.h"
#include "sandbox/network/pod_links.h"
#include "sandbox/network/tap.h"

namespace husk::sandbox {
namespace {

// For DEL after an ADD that failed, whose own time may be over.
constexpr auto kUndoLimit = std::chrono::seconds(30);

// What a pod or its network asks for and does not get. Some networks see to host ports and bandwidth without CNI, so
// that it is no error that no plugin wants to know.
void WarnOfUnheard(const CniAttachment& attachment) {
  for (const auto& [capability, value] : attachment.capability_arguments.items()) {
    const auto hears = [&name = capability](const CniPlugin& plugin) {
      const nlohmann::json& capabilities = ObjectMember(plugin.config, "capabilities");
      const auto wanted = capabilities.find(name);
      return wanted != capabilities.end() && *wanted == true;
    };
    const auto& plugins = attachment.network.plugins;
    if (capability == "dns" || std::any_of(plugins.begin(), plugins.end(), hears)) continue;
    spdlog::warn("pod={} asks for {}, which no plugin of {} has the capability for", attachment.container_id,
                 capability, attachment.network.source);
  }
  for (const CniPlugin& plugin : attachment.network.plugins) {
    if (ObjectMember(plugin.config, "sysctl").empty()) continue;
    spdlog::warn("pod={} plugin {} of {} sets sysctls in the pod's namespace, which its virtual machine does not see",
                 attachment.container_id, plugin.type, attachment.network.source);
  }
}

// A plugin or a file that is not there must not look as if the pod were not: the kubelet takes NOT_FOUND at
// StopPodSandbox for success, and would never ask again.
Status NotOfThePod(const Status& status) {
  return absl::IsNotFound(status) ? absl::FailedPreconditionError(status.message()) : status;
}

class CniNetwork : public Network {
 public:
  explicit CniNetwork(const CniOptions& options)
      : options_(options),
        namespaces_(options.namespace_directory),
        cache_(absl::StrCat(options.cache_directory, "/attachments")) {}

  Status Ready() override {
    HUSK_ASSIGN_OR_RETURN(const auto network, Configuration(Context::Background()));
    for (const CniPlugin& plugin : network.plugins) {
      const std::string address_plugin = StringMember(ObjectMember(plugin.config, "ipam"), "type");
      for (const std::string& type : {plugin.type, address_plugin}) {
        if (!type.empty())
          HUSK_RETURN_IF_ERROR_DOING(FindPlugin(options_.plugin_directories, type).status(), network.source);
      }
    }
    return CanRedirect();
  }

  [[nodiscard]] std::string NamespacePath(const std::string& pod_id) const override {
    return CheckPodId(pod_id).ok() ? namespaces_.PathOf(pod_id) : "";
  }

  Status CreateNamespace(const Context& context, const std::string& pod_id) override {
    HUSK_RETURN_IF_ERROR(CheckPodId(pod_id));
    HUSK_RETURN_IF_ERROR(context.Check());
    return namespaces_.Create(pod_id);
  }

  StatusOr<NetworkResult> Attach(const Context& context, const NetworkRequest& request) override {
    HUSK_RETURN_IF_ERROR(CheckPodId(request.pod_id));
    // An earlier try that nobody undid: CNI allows no second ADD before a DEL.
    HUSK_RETURN_IF_ERROR(Detach(context, request));
    auto network = Configuration(context);
    if (!network.ok()) return NotOfThePod(network.status());
    HUSK_ASSIGN_OR_RETURN(auto attachment,
                          NewAttachment(request, namespaces_.PathOf(request.pod_id), *std::move(network)));
    WarnOfUnheard(attachment);
    HUSK_RETURN_IF_ERROR_DOING(cache_.Save(attachment), "note what CNI ADD will need undone");
    auto result = Add(context, attachment);
    if (result.ok()) return result;
    result = NotOfThePod(result.status());
    const Status undone = Delete(context.Detached(kUndoLimit), attachment);
    if (undone.ok()) return result;
    return Annotate(result.status(), absl::StrCat("(and undoing it failed: ", undone.message(), ")"));
  }

  StatusOr<UniqueFd> CreateTap(const Context& context, const std::string& pod_id,
                               const NetworkInterface& interface) override {
    HUSK_RETURN_IF_ERROR(CheckPodId(pod_id));
    HUSK_RETURN_IF_ERROR(context.Check());
    auto tap = OpenTap(namespaces_.PathOf(pod_id), interface, options_.filter_sources);
    if (!tap.ok()) return Annotate(tap.status(), absl::StrCat("make a tap for ", interface.name));
    return tap;
  }

  Status Detach(const Context& context, const NetworkRequest& request) override {
    HUSK_RETURN_IF_ERROR(CheckPodId(request.pod_id));
    auto attachment = cache_.Load(request.pod_id);
    if (absl::IsNotFound(attachment.status())) return absl::OkStatus();
    if (absl::IsDataLoss(attachment.status())) {
      // The next best knowledge: what ADD would be told now.
      auto network = Configuration(context);
      if (!network.ok()) return NotOfThePod(network.status());
      attachment = NewAttachment(request, namespaces_.PathOf(request.pod_id), *std::move(network));
    }
    HUSK_RETURN_IF_ERROR(attachment.status());
    return Delete(context, *attachment);
  }

  Status RemoveNamespace(const Context& /*context*/, const std::string& pod_id) override {
    HUSK_RETURN_IF_ERROR(CheckPodId(pod_id));
    return namespaces_.Remove(pod_id);
  }

  StatusOr<std::vector<std::string>> ExistingNamespaces() override {
    HUSK_ASSIGN_OR_RETURN(const auto namespaces, namespaces_.List());
    // After a reboot the namespaces are gone, but addresses may still be leased.
    HUSK_ASSIGN_OR_RETURN(const auto attached, cache_.List());
    std::set<std::string> ids(namespaces.begin(), namespaces.end());
    ids.insert(attached.begin(), attached.end());
    return std::vector<std::string>(ids.begin(), ids.end());
  }

 private:
  StatusOr<CniConfigList> Configuration(const Context& context) {
    auto network = LoadConfigList(options_.configuration_directory);
    if (!absl::IsNotFound(network.status()) || options_.default_bridge.empty()) return network;
    return DefaultBridgeNetwork(options_, CanMasquerade(context));
  }

  // Every pod would fail: better that none is scheduled here.
  Status CanRedirect() {
    const MutexLock lock(mutex_);
    if (!redirects_) {
      HUSK_RETURN_IF_ERROR_DOING(ProbeTrafficControl(options_.filter_sources), "the kernel cannot join taps to CNI");
    }
    redirects_ = true;
    return absl::OkStatus();
  }

  bool CanMasquerade(const Context& context) {
    const MutexLock lock(mutex_);
    // What works stays; what does not is tried again, for the administrator may have mended it.
    if (!masquerade_) masquerade_ = ProbeMasquerade(context).ok();
    return masquerade_;
  }

  StatusOr<NetworkResult> Add(const Context& context, CniAttachment& attachment) {
    HUSK_ASSIGN_OR_RETURN(attachment.result, AddNetwork(context, options_.plugin_directories, attachment));
    HUSK_RETURN_IF_ERROR_DOING(cache_.Save(attachment), "keep the CNI result");
    HUSK_ASSIGN_OR_RETURN_DOING(auto result,
                                ConvertResult(attachment.result, attachment.namespace_path, attachment.interface_name),
                                attachment.network.source);
    HUSK_RETURN_IF_ERROR_DOING(RunInNamespace(attachment.namespace_path, [&] { return CompleteFromNamespace(result); }),
                               absl::StrCat("look at what CNI made (", attachment.network.source, ")"));
    return result;
  }

  Status Delete(const Context& context, const CniAttachment& attachment) {
    HUSK_RETURN_IF_ERROR(NotOfThePod(DeleteNetwork(context, options_.plugin_directories, attachment)));
    return cache_.Remove(attachment.container_id);
  }

  const CniOptions options_;
  NamespaceDirectory namespaces_;
  const AttachmentCache cache_;
  Mutex mutex_;
  bool masquerade_ ABSL_GUARDED_BY(mutex_) = false;
  bool redirects_ ABSL_GUARDED_BY(mutex_) = false;  // once seen, for good
};

}  // namespace

StatusOr<std::unique_ptr<Network>> NewCniNetwork(const CniOptions& options) {
  for (const std::string* directory : {&options.namespace_directory, &options.cache_directory}) {
    if (!absl::StartsWith(*directory, "/")) {
      return absl::InvalidArgumentError(
          absl::StrCat("the network needs absolute directories, not \"", *directory, "\""));
    }
  }
  if (!options.default_bridge.empty()) HUSK_RETURN_IF_ERROR(DefaultBridgeNetwork(options, false).status());
  return std::make_unique<CniNetwork>(options);
}

}  // namespace husk::sandbox
