#include "images/registry_hosts.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "images/hosts_file.h"
#include "images/text.h"
#include "images/url.h"

namespace husk::images {
namespace {

namespace fs = std::filesystem;

// What "host:port" means in a name of an image: TLS, unless a loopback address is given.
bool SpeaksPlainHttp(const Reference& reference) {
  return IsLoopbackHost(reference.host) && !reference.host.ends_with(":443");
}

// The certificates that Docker looks for: *.crt of authorities, NAME.cert with NAME.key of the client.
StatusOr<HostSettings> ReadCertificateFiles(const fs::path& directory) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    paths.push_back(entry->path());
  }
  if (error) return absl::FailedPreconditionError(Concat("list ", directory.string(), ": ", error.message()));
  std::sort(paths.begin(), paths.end());
  HostSettings settings;
  for (const fs::path& path : paths) {
    if (path.extension() == ".crt") {
      HUSK_RETURN_IF_ERROR(AddAuthority(path, &settings.tls));
      settings.has_tls = true;
    } else if (path.extension() == ".cert") {
      HUSK_RETURN_IF_ERROR(AddClient(path, fs::path(path).replace_extension(".key"), &settings.tls));
      settings.has_tls = true;
    }
  }
  return settings;
}

StatusOr<HostsFile> ReadHostDirectory(const fs::path& directory) {
  const fs::path file = directory / "hosts.toml";
  std::error_code error;
  if (fs::exists(file, error)) return ReadHostsFile(file);
  HostsFile hosts;
  HUSK_ASSIGN_OR_RETURN(hosts.server, ReadCertificateFiles(directory));
  return hosts;
}

bool EndsWithApiRoot(std::string_view path) {
  return path == "/v2" || path.ends_with("/v2");
}

StatusOr<RegistryEndpoint> MakeEndpoint(const Reference& reference, const HostSettings& settings, bool mirror) {
  // An administrator who gives certificates wants TLS.
  const bool plain = SpeaksPlainHttp(reference) && !settings.has_tls;
  HUSK_ASSIGN_OR_RETURN(const Url own, ParseUrl(Concat(plain ? "http://" : "https://", ApiHost(reference.host))));
  HUSK_ASSIGN_OR_RETURN(const Url url, settings.address.empty() ? StatusOr<Url>(own) : ParseUrl(settings.address));
  RegistryEndpoint endpoint;
  endpoint.mirror = mirror;
  endpoint.base = url.text.substr(0, url.text.find('?'));
  while (endpoint.base.ends_with('/')) endpoint.base.pop_back();
  if (!settings.override_path && !EndsWithApiRoot(endpoint.base)) endpoint.base += "/v2";
  const bool own_host = (url.host == own.host || url.host == reference.host) && url.port == own.port;
  if (!own_host) endpoint.query = "ns=" + EscapeQuery(reference.host);
  endpoint.credentials = !mirror || (own_host && (url.scheme == "https" || plain));
  endpoint.pull = settings.pull;
  endpoint.resolve = settings.resolve;
  endpoint.headers = settings.headers;
  endpoint.authorization = settings.authorization;
  endpoint.dial_timeout = settings.dial_timeout;
  if (settings.has_tls) endpoint.tls = std::make_shared<const TlsSettings>(settings.tls);
  return endpoint;
}

}  // namespace

std::vector<std::string> HostDirectoryNames(std::string_view host) {
  std::vector<std::string> names;
  const std::size_t colon = host.rfind(':');
  const std::size_t bracket = host.rfind(']');
  const bool has_port = colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket);
  if (has_port) names.push_back(Concat(host.substr(0, colon), "_", host.substr(colon + 1), "_"));
  names.emplace_back(host);
  names.emplace_back("_default");
  return names;
}

StatusOr<std::vector<RegistryEndpoint>> FindEndpoints(const std::string& directory, const Reference& reference) {
  HostsFile hosts;
  for (const std::string& name : HostDirectoryNames(reference.host)) {
    if (directory.empty()) break;
    const fs::path path = fs::path(directory) / name;
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      const bool absent =
          !error || error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory;
      if (absent) continue;
      return absl::FailedPreconditionError(Concat("look at ", path.string(), ": ", error.message()));
    }
    HUSK_ASSIGN_OR_RETURN(hosts, ReadHostDirectory(path));
    break;
  }
  std::vector<RegistryEndpoint> endpoints;
  for (const HostSettings& mirror : hosts.mirrors) {
    HUSK_ASSIGN_OR_RETURN(RegistryEndpoint endpoint, MakeEndpoint(reference, mirror, /*mirror=*/true));
    endpoints.push_back(std::move(endpoint));
  }
  HUSK_ASSIGN_OR_RETURN(RegistryEndpoint server, MakeEndpoint(reference, hosts.server, /*mirror=*/false));
  endpoints.push_back(std::move(server));
  return endpoints;
}

}  // namespace husk::images
