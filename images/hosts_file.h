// The text of a hosts.toml, as containerd documents it.
#ifndef HUSK_IMAGES_HOSTS_FILE_H_
#define HUSK_IMAGES_HOSTS_FILE_H_

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "images/tls_settings.h"

namespace husk::images {

struct HostSettings {
  std::string address;  // an absolute URL; empty: the registry of the directory's name
  bool pull = true;
  bool resolve = true;
  bool override_path = false;  // the URL's path is the API's root as it stands
  bool has_tls = false;        // `tls` says something
  TlsSettings tls;
  std::vector<std::string> headers;  // "Name: value"
  std::string authorization;         // the one that is named Authorization
  std::optional<std::chrono::milliseconds> dial_timeout;
};

struct HostsFile {
  std::vector<HostSettings> mirrors;  // in the file's order
  HostSettings server;
};

// Relative paths in it are below its directory. FAILED_PRECONDITION, "FILE:LINE: ..."; unknown keys are errors.
StatusOr<HostsFile> ReadHostsFile(const std::string& path);

// The same of a text that stands in `path`.
StatusOr<HostsFile> ParseHostsFile(std::string_view text, const std::string& path);

}  // namespace husk::images

#endif  // HUSK_IMAGES_HOSTS_FILE_H_
