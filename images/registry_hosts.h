// Where a registry's repositories are asked for: containerd's certs.d/<host>/hosts.toml, Docker's certificate files in
// the same place, or the registry itself.
#ifndef HUSK_IMAGES_REGISTRY_HOSTS_H_
#define HUSK_IMAGES_REGISTRY_HOSTS_H_

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "images/http_client.h"
#include "images/reference.h"

namespace husk::images {

struct RegistryEndpoint {
  std::string base;                        // "https://host:port/v2", without a slash at its end
  std::string query;                       // "ns=<host>" where another host than the reference's is asked, else empty
  std::vector<std::string> headers;        // "Name: value"; may be secrets, and go to this endpoint only
  std::string authorization;               // an Authorization among them
  std::shared_ptr<const TlsSettings> tls;  // null: the system's authorities, no client certificate
  std::optional<std::chrono::milliseconds> dial_timeout;
  bool mirror = false;  // else it is the registry itself, and the last one
  bool pull = true;     // manifests by digest, and blobs
  bool resolve = true;  // manifests by tag, with `pull`
  // The credentials of the pull are meant for it (docs/adr/0023).
  bool credentials = true;
};

// In the order in which they are to be asked. `directory` is certs.d, read anew each time; empty: the registry itself
// is all there is. FAILED_PRECONDITION that names file and line.
StatusOr<std::vector<RegistryEndpoint>> FindEndpoints(const std::string& directory, const Reference& reference);

// The names of a host's directory below certs.d, the most particular first: "host_port_", "host:port", "_default".
std::vector<std::string> HostDirectoryNames(std::string_view host);

}  // namespace husk::images

#endif  // HUSK_IMAGES_REGISTRY_HOSTS_H_
