#include "sandbox/network/cni_config.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "sandbox/network/json.h"

namespace husk::sandbox {
namespace {

// Ascending: a configuration that names several means the highest that both sides know.
constexpr std::array<const char*, 5> kVersions = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};

// What a file says, or its name, as far as a message can show it.
std::string Shown(const std::string& text) {
  constexpr std::size_t kLongest = 200;
  return absl::CHexEscape(text.substr(0, kLongest));
}

Status Invalid(const std::string& source, const std::string& fault) {
  return absl::InvalidArgumentError(absl::StrCat(source, ": ", fault));
}

StatusOr<std::string> ChooseVersion(const nlohmann::json& json, const std::string& source) {
  std::vector<std::string> offered = {StringMember(json, "cniVersion")};
  for (const auto& version : ArrayMember(json, "cniVersions")) {
    if (version.is_string()) offered.push_back(version.get<std::string>());
  }
  for (auto version = kVersions.rbegin(); version != kVersions.rend(); ++version) {
    if (std::find(offered.begin(), offered.end(), *version) != offered.end()) return std::string(*version);
  }
  return Invalid(source, absl::StrCat("cniVersion \"", Shown(offered[0]), "\" is not supported (0.3.0 to 1.1.0 are)"));
}

bool GoodName(const std::string& name) {
  return !name.empty() && absl::ascii_isalnum(static_cast<unsigned char>(name.front())) &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
         });
}

Status AddPlugin(const nlohmann::json& config, CniConfigList& list) {
  const std::string type = StringMember(config, "type");
  if (type.empty()) return Invalid(list.source, "a plugin without a \"type\"");
  const bool printable = std::all_of(type.begin(), type.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (!printable || type.find('/') != std::string::npos || type == "." || type == "..") {
    return Invalid(list.source, absl::StrCat("a plugin's type must be a file name: ", Shown(type)));
  }
  list.plugins.push_back({type, config});
  return absl::OkStatus();
}

StatusOr<CniConfigList> Start(const nlohmann::json& json, const std::string& source) {
  CniConfigList list;
  list.source = source;
  list.name = StringMember(json, "name");
  if (!GoodName(list.name))
    return Invalid(source, absl::StrCat("not a network's \"name\": \"", Shown(list.name), "\""));
  HUSK_ASSIGN_OR_RETURN(list.version, ChooseVersion(json, source));
  return list;
}

StatusOr<CniConfigList> LoadFile(const std::filesystem::path& file) {
  const std::string source = Shown(file.string());
  const auto text = ReadSmallFile(file.string());
  if (!text.ok()) return Status(text.status().code(), Shown(std::string(text.status().message())));
  if (file.extension() == ".conflist") return ParseConfigList(*text, source);
  return ParseSingleConfig(*text, source);
}

}  // namespace

StatusOr<CniConfigList> ParseConfigList(const std::string& text, const std::string& source, std::size_t maximum_depth) {
  HUSK_ASSIGN_OR_RETURN_DOING(const auto json, ParseJsonObject(text, maximum_depth), source);
  HUSK_ASSIGN_OR_RETURN(auto list, Start(json, source));
  for (const auto& plugin : ArrayMember(json, "plugins")) HUSK_RETURN_IF_ERROR(AddPlugin(plugin, list));
  if (list.plugins.empty()) return Invalid(source, "no \"plugins\"");
  return list;
}

StatusOr<CniConfigList> ParseSingleConfig(const std::string& text, const std::string& source) {
  HUSK_ASSIGN_OR_RETURN_DOING(const auto json, ParseJsonObject(text), source);
  HUSK_ASSIGN_OR_RETURN(auto list, Start(json, source));
  HUSK_RETURN_IF_ERROR(AddPlugin(json, list));
  return list;
}

StatusOr<CniConfigList> LoadConfigList(const std::string& directory) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const auto extension = entry->path().extension();
    std::error_code ignored;
    if ((extension == ".conf" || extension == ".conflist" || extension == ".json") && !entry->is_directory(ignored)) {
      files.push_back(entry->path());
    }
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return ErrnoStatus(error.value(), absl::StrCat("read ", directory));
  }
  if (files.empty()) return absl::NotFoundError(absl::StrCat("no CNI configuration in ", directory));
  std::sort(files.begin(), files.end());

  std::vector<std::string> faults;
  for (const auto& file : files) {
    auto list = LoadFile(file);
    if (list.ok()) return list;
    faults.emplace_back(list.status().message());
  }
  return absl::InvalidArgumentError(absl::StrCat("no valid CNI configuration: ", absl::StrJoin(faults, "; ")));
}

nlohmann::json ToJson(const CniConfigList& list) {
  nlohmann::json plugins = nlohmann::json::array();
  for (const CniPlugin& plugin : list.plugins) plugins.push_back(plugin.config);
  return {{"name", list.name}, {"cniVersion", list.version}, {"plugins", std::move(plugins)}};
}

}  // namespace husk::sandbox
