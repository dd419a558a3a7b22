#include "cri/config/config.h"

#include <sys/un.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string_view>
#include <system_error>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cri/config/fields.h"

namespace husk::cri {

namespace {

// Where in which file, for errors.
Status ErrorAt(const std::string& name, const YAML::Mark& mark, std::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(name, ":", mark.line + 1, ":", mark.column + 1, ": ",
                                                 absl::string_view(message.data(), message.size())));
}

bool IsSection(const std::string& path) {
  return std::any_of(ConfigFields().begin(), ConfigFields().end(),
                     [&](const ConfigField& field) { return absl::StartsWith(field.key, path + "."); });
}

// The names that may stand in the section `prefix` ("" or "vm.").
std::vector<std::string> NamesIn(const std::string& prefix) {
  std::vector<std::string> names;
  if (prefix.empty()) names.emplace_back("version");
  for (const ConfigField& field : ConfigFields()) {
    if (!absl::StartsWith(field.key, prefix)) continue;
    const std::string rest = field.key.substr(prefix.size());
    const std::string name = rest.substr(0, rest.find('.'));
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  return names;
}

Status UnknownKey(const std::string& file, const YAML::Mark& mark, const std::string& prefix, const std::string& key) {
  std::string message = absl::StrCat("unknown key \"", prefix, key, "\"");
  // Also where the name is right and the section is wrong.
  for (const ConfigField& field : ConfigFields()) {
    if (absl::EndsWith(field.key, "." + key)) {
      return ErrorAt(file, mark, absl::StrCat(message, "; did you mean \"", field.key, "\"?"));
    }
  }
  const std::string nearest = NearestName(key, NamesIn(prefix));
  if (!nearest.empty()) absl::StrAppend(&message, "; did you mean \"", prefix, nearest, "\"?");
  return ErrorAt(file, mark, message);
}

Status CheckVersion(const std::string& file, const YAML::Node& node) {
  if (node.IsScalar() && node.Scalar() == "1") return absl::OkStatus();
  return ErrorAt(file, node.Mark(), "version: this huskd reads version 1 of the configuration, and no other");
}

Status ApplySection(const YAML::Node& node, const std::string& file, const std::string& prefix, Config* config) {
  if (!node.IsMap()) {
    return ErrorAt(file, node.Mark(),
                   absl::StrCat("expected keys and values below ", prefix.substr(0, prefix.rfind('.'))));
  }
  std::set<std::string> seen;
  for (const auto& entry : node) {
    const YAML::Mark mark = entry.first.Mark();
    if (!entry.first.IsScalar()) return ErrorAt(file, mark, "a key must be a word");
    const std::string key = entry.first.Scalar();
    const std::string path = prefix + key;
    if (!seen.insert(key).second) return ErrorAt(file, mark, absl::StrCat("\"", path, "\" is given twice"));
    if (path == "version") {
      HUSK_RETURN_IF_ERROR(CheckVersion(file, entry.second));
      continue;
    }
    if (IsSection(path)) {
      HUSK_RETURN_IF_ERROR(ApplySection(entry.second, file, path + ".", config));
      continue;
    }
    const auto field = std::find_if(ConfigFields().begin(), ConfigFields().end(),
                                    [&](const ConfigField& candidate) { return candidate.key == path; });
    if (field == ConfigFields().end()) return UnknownKey(file, mark, prefix, key);
    const Status set = field->set(entry.second, config);
    if (!set.ok()) return ErrorAt(file, entry.second.Mark(), absl::StrCat(path, ": ", set.message()));
  }
  return absl::OkStatus();
}

StatusOr<std::string> ReadWholeFile(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat("read ", path, ": it is a directory"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return ErrnoStatus(errno, "read " + path);
  return std::string{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

StatusOr<std::vector<std::string>> DropIns(const std::filesystem::path& directory) {
  std::vector<std::string> paths;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".yaml") paths.push_back(entry->path());
  }
  if (error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory) {
    return ErrnoStatus(error.value(), "list " + directory.string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

Status ApplyConfigText(const std::string& text, const std::string& name, bool drop_in, Config* config) {
  try {
    const YAML::Node document = YAML::Load(text);
    // An empty drop-in says nothing, which is fine.
    if (drop_in && document.IsNull()) return absl::OkStatus();
    if (!document.IsMap()) return ErrorAt(name, YAML::Mark(), "expected a mapping that begins with version: 1");
    if (!drop_in && !document["version"]) {
      return absl::InvalidArgumentError(absl::StrCat(name, ":1:1: the key \"version\" is missing: add \"version: 1\""));
    }
    return ApplySection(document, name, "", config);
  } catch (const YAML::Exception& error) {
    return ErrorAt(name, error.mark, error.msg);
  }
}

StatusOr<Config> LoadConfig(const std::string& path, bool must_exist) {
  Config config;
  std::error_code error;
  if (must_exist || std::filesystem::exists(path, error)) {
    const StatusOr<std::string> text = ReadWholeFile(path);
    if (!text.ok()) return absl::InvalidArgumentError(text.status().message());
    HUSK_RETURN_IF_ERROR(ApplyConfigText(*text, path, /*drop_in=*/false, &config));
  }
  HUSK_ASSIGN_OR_RETURN(const std::vector<std::string> drop_ins,
                        DropIns(std::filesystem::path(path).parent_path() / "conf.d"));
  for (const std::string& drop_in : drop_ins) {
    const StatusOr<std::string> text = ReadWholeFile(drop_in);
    if (!text.ok()) return absl::InvalidArgumentError(text.status().message());
    HUSK_RETURN_IF_ERROR(ApplyConfigText(*text, drop_in, /*drop_in=*/true, &config));
  }
  return config;
}

Status CheckConfig(const Config& config) {
  const Config::VirtualMachine& vm = config.vm;
  if (vm.maximum_vcpus != 0 && vm.default_vcpus > vm.maximum_vcpus) {
    return absl::InvalidArgumentError(
        absl::StrCat("vm.default_vcpus (", vm.default_vcpus, ") is above vm.maximum_vcpus (", vm.maximum_vcpus, ")"));
  }
  if (vm.maximum_memory != 0 && vm.default_memory > vm.maximum_memory) {
    return absl::InvalidArgumentError(absl::StrCat("vm.default_memory (", FormatByteSize(vm.default_memory),
                                                   ") is above vm.maximum_memory (", FormatByteSize(vm.maximum_memory),
                                                   ")"));
  }
  constexpr std::uint64_t kMemoryUnit = std::uint64_t{2} << 20;
  if (vm.default_memory % kMemoryUnit != 0 || vm.maximum_memory % kMemoryUnit != 0) {
    return absl::InvalidArgumentError("vm.default_memory and vm.maximum_memory must be multiples of 2Mi");
  }
  constexpr std::uint64_t kScratchUnit = 4096;
  constexpr std::uint64_t kMostScratch = std::uint64_t{16} << 40;
  if (vm.scratch_size % kScratchUnit != 0 || vm.scratch_size > kMostScratch) {
    return absl::InvalidArgumentError(absl::StrCat("vm.scratch_size (", FormatByteSize(vm.scratch_size),
                                                   ") must be a multiple of 4Ki, and at most 16Ti"));
  }
  if (std::uint64_t{vm.first_user} + vm.user_count > 0x7fffffffU) {
    return absl::InvalidArgumentError("vm.first_user and vm.user_count reach beyond the last user id");
  }
  if (config.streaming.certificate.empty() != config.streaming.key.empty()) {
    return absl::InvalidArgumentError("streaming.certificate and streaming.key must be given together, or neither");
  }
  if (config.root == config.state) {
    return absl::InvalidArgumentError("root and state must be different directories: state is lost at a reboot");
  }
  return SocketPath(config.listen).status();
}

std::uint32_t UnlimitedVcpus(const Config& config) {
  return (config.vm.unlimited_cpu_percent * std::thread::hardware_concurrency() + 99) / 100;
}

StatusOr<std::string> SocketPath(const std::string& listen) {
  std::string path = listen;
  if (absl::StartsWith(path, "unix://")) path.erase(0, 7);
  // Room for the temporary directory in which the socket is made before it gets its name (SocketGuard).
  constexpr std::size_t kLongest = sizeof(sockaddr_un::sun_path) - 1;
  if (path.size() < 2 || path.front() != '/' || path.back() == '/' || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("expected unix:///PATH of a socket, not \"", listen, "\""));
  }
  if (path.size() > kLongest) {
    return absl::InvalidArgumentError(
        absl::StrCat("the socket's path is longer than the ", kLongest, " bytes that unix sockets allow: ", path));
  }
  return path;
}

std::string ConfigToYaml(const Config& config) {
  YAML::Emitter out;
  out << YAML::BeginMap << YAML::Key << "version" << YAML::Value << 1;
  std::vector<std::string> open;  // the sections we are in
  for (const ConfigField& field : ConfigFields()) {
    std::vector<std::string> parts = absl::StrSplit(field.key, '.');
    const std::string name = parts.back();
    parts.pop_back();
    const std::size_t common = static_cast<std::size_t>(
        std::mismatch(open.begin(), open.end(), parts.begin(), parts.end()).first - open.begin());
    for (; open.size() > common; open.pop_back()) out << YAML::EndMap;
    for (; open.size() < parts.size(); open.push_back(parts[open.size()])) {
      out << YAML::Key << parts[open.size()] << YAML::Value << YAML::BeginMap;
    }
    out << YAML::Key << name << YAML::Value;
    field.print(config, &out);
  }
  for (; !open.empty(); open.pop_back()) out << YAML::EndMap;
  out << YAML::EndMap;
  return absl::StrCat(out.c_str(), "\n");
}

}  // namespace husk::cri
