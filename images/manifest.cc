#include "images/manifest.h"

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "images/digest.h"
#include "images/limits.h"
#include "images/text.h"

namespace husk::images {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
constexpr std::string_view kDockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json";
constexpr std::string_view kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
constexpr std::size_t kMaximumLayers = 512;
// Every ListImages carries them, and the kubelet takes no message above 16 MiB.
constexpr std::size_t kMaximumAnnotationBytes = std::size_t{256} << 10;
constexpr std::size_t kMaximumPlatforms = 10'000;

Status Malformed(std::string_view what) {
  return absl::InvalidArgumentError(Concat("malformed image: ", what));
}

// Reads a document without keeping it, and stops at what makes it unfit to be kept. (The library's parser with a
// callback would do as well, but its time is quadratic in a list's length.)
class Inspector : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return Value(); }
  bool boolean(bool /*value*/) override { return Value(); }
  bool number_integer(number_integer_t /*value*/) override { return Value(); }
  bool number_unsigned(number_unsigned_t /*value*/) override { return Value(); }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { return Value(); }
  bool string(string_t& /*value*/) override { return Value(); }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(std::size_t /*elements*/) override { return Open(); }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t /*elements*/) override { return Open(); }
  bool end_array() override { return Close(); }
  bool key(string_t& key) override {
    // Readers disagree on which of two values counts: one would check what another runs.
    if (keys_.back().insert(key).second) return true;
    fault_ = Concat("has the key \"", Excerpt(key), "\" twice");
    return false;
  }
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return false;
  }
  [[nodiscard]] const std::string& fault() const { return fault_; }

 private:
  bool Value() {
    if (++values_ <= kMaximumJsonValues) return true;
    fault_ = Concat("has more than ", kMaximumJsonValues, " values");
    return false;
  }
  bool Open() {
    if (!Value()) return false;
    keys_.emplace_back();
    if (keys_.size() <= kMaximumJsonDepth) return true;
    fault_ = Concat("nests deeper than ", kMaximumJsonDepth);
    return false;
  }
  bool Close() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> keys_;  // of the objects, and none of the lists, that are open
  std::size_t values_ = 0;
  std::string fault_ = "is not a JSON object";
};

StatusOr<Json> Parse(std::string_view text, std::string_view document) {
  Inspector inspector;
  if (!Json::sax_parse(text, &inspector)) return Malformed(Concat("its ", document, " ", inspector.fault()));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Malformed(Concat("its ", document, " is not a JSON object"));
  return json;
}

const Json* Member(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// Empty if the key is missing; an error if it is something else than text.
Status GetString(const Json& object, const char* key, std::string& value) {
  const Json* const member = Member(object, key);
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_string()) return Malformed(Concat(key, " is not a string"));
  value = member->get_ref<const std::string&>();
  return absl::OkStatus();
}

Status GetStrings(const Json& object, const char* key, std::vector<std::string>& values) {
  const Json* const member = Member(object, key);
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_array()) return Malformed(Concat(key, " is not a list"));
  for (const Json& item : *member) {
    if (!item.is_string()) return Malformed(Concat(key, " is not a list of strings"));
    values.push_back(item.get_ref<const std::string&>());
  }
  return absl::OkStatus();
}

Status GetAnnotations(const Json& manifest, std::map<std::string, std::string>& annotations) {
  const Json* const member = Member(manifest, "annotations");
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_object()) return Malformed("its manifest's annotations are not an object");
  std::size_t bytes = 0;
  for (const auto& [key, value] : member->items()) {
    if (!value.is_string()) return Malformed("an annotation of its manifest is not a string");
    bytes += key.size() + value.get_ref<const std::string&>().size();
    annotations.emplace(key, value.get_ref<const std::string&>());
  }
  if (bytes > kMaximumAnnotationBytes) return Malformed("its manifest's annotations have more than 256 KiB");
  return absl::OkStatus();
}

StatusOr<Descriptor> ParseDescriptor(const Json& json, std::string_view what) {
  Descriptor descriptor;
  HUSK_RETURN_IF_ERROR_DOING(GetString(json, "mediaType", descriptor.media_type), what);
  HUSK_RETURN_IF_ERROR_DOING(GetString(json, "digest", descriptor.digest), what);
  if (!IsDigest(descriptor.digest)) {
    return Malformed(
        Concat(what, ": the digest \"", Excerpt(descriptor.digest), "\" is not sha256: and 64 hexadecimal digits"));
  }
  const Json* const size = Member(json, "size");
  if (size == nullptr) return Malformed(Concat(what, ": no size"));
  constexpr auto kLargest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!size->is_number_unsigned() || size->get<std::uint64_t>() > kLargest) {
    return Malformed(Concat(what, ": the size ", Excerpt(size->dump()), " is no number of bytes"));
  }
  descriptor.size = size->get<std::uint64_t>();
  return descriptor;
}

bool IsLayerType(std::string_view type) {
  static const std::set<std::string_view> kTypes = {
      "",
      "application/vnd.oci.image.layer.v1.tar",
      "application/vnd.oci.image.layer.v1.tar+gzip",
      "application/vnd.oci.image.layer.v1.tar+zstd",
      "application/vnd.oci.image.layer.nondistributable.v1.tar",
      "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
      "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
      "application/vnd.docker.image.rootfs.diff.tar",
      "application/vnd.docker.image.rootfs.diff.tar.gzip",
      "application/vnd.docker.image.rootfs.diff.tar.zstd",
      "application/vnd.docker.image.rootfs.foreign.diff.tar",
      "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
  };
  return kTypes.contains(type);
}

Status ParseRunConfig(const Json& json, ImageRunConfig& run) {
  const Json* const config = Member(json, "config");
  if (config == nullptr) return absl::OkStatus();
  HUSK_RETURN_IF_ERROR(GetString(*config, "User", run.user));
  HUSK_RETURN_IF_ERROR(GetStrings(*config, "Env", run.environment));
  HUSK_RETURN_IF_ERROR(GetStrings(*config, "Entrypoint", run.entrypoint));
  HUSK_RETURN_IF_ERROR(GetStrings(*config, "Cmd", run.command));
  HUSK_RETURN_IF_ERROR(GetString(*config, "WorkingDir", run.working_directory));
  HUSK_RETURN_IF_ERROR(GetString(*config, "StopSignal", run.stop_signal));
  if (const Json* const volumes = Member(*config, "Volumes"); volumes != nullptr) {
    if (!volumes->is_object()) return Malformed("Volumes is not an object");
    for (const auto& [path, unused] : volumes->items()) run.volumes.push_back(path);
  }
  if (const Json* const labels = Member(*config, "Labels"); labels != nullptr) {
    if (!labels->is_object()) return Malformed("Labels is not an object");
    for (const auto& [key, value] : labels->items()) {
      if (!value.is_string()) return Malformed("a label is not a string");
      run.labels[key] = value.get_ref<const std::string&>();
    }
  }
  return absl::OkStatus();
}

// `type` without parameters such as "; charset=utf-8".
std::string BareType(std::string_view type) {
  return ToLower(Strip(type.substr(0, type.find(';'))));
}

bool IsManifestType(std::string_view type) {
  return type == kOciIndex || type == kOciManifest || type == kDockerIndex || type == kDockerManifest;
}

}  // namespace

std::string_view AcceptedManifestTypes() {
  static const std::string* const types =
      new std::string(Join(std::array{kOciIndex, kDockerIndex, kOciManifest, kDockerManifest}, ", "));
  return *types;
}

StatusOr<bool> IsIndex(std::string_view text, std::string_view media_type) {
  HUSK_ASSIGN_OR_RETURN(const Json json, Parse(text, "manifest"));
  const std::string outer = BareType(media_type);
  std::string inner;
  HUSK_RETURN_IF_ERROR(GetString(json, "mediaType", inner));
  if (IsManifestType(outer) && !inner.empty() && inner != outer) {
    return Malformed(Concat("its manifest is announced as ", Excerpt(outer), ", but says of itself ", Excerpt(inner)));
  }
  const std::string& type = inner.empty() ? outer : inner;
  const Json* const version = Member(json, "schemaVersion");
  if (version != nullptr && *version == 1) return Malformed("manifests of schema 1 are not supported");
  const bool has_manifests = Member(json, "manifests") != nullptr;
  const bool has_layers = Member(json, "layers") != nullptr || Member(json, "config") != nullptr;
  if (has_manifests == has_layers) return Malformed("its manifest is neither an index nor an image manifest");
  const bool says_index = type == kOciIndex || type == kDockerIndex;
  if (IsManifestType(type) && says_index != has_manifests) {
    return Malformed(Concat("its manifest is not what its media type says: ", type));
  }
  if (!inner.empty() && !IsManifestType(inner)) {
    return Malformed(Concat("a manifest of unknown media type ", Excerpt(inner)));
  }
  return has_manifests;
}

StatusOr<Descriptor> ChooseFromIndex(std::string_view text) {
  HUSK_ASSIGN_OR_RETURN(const Json json, Parse(text, "index"));
  const Json* const manifests = Member(json, "manifests");
  if (manifests == nullptr || !manifests->is_array() || manifests->size() > kMaximumPlatforms) {
    return Malformed("its index has no list of manifests");
  }
  std::set<std::string> platforms;
  for (const Json& item : *manifests) {
    std::string os;
    std::string architecture;
    std::string variant;
    if (const Json* const platform = Member(item, "platform"); platform != nullptr) {
      HUSK_RETURN_IF_ERROR(GetString(*platform, "os", os));
      HUSK_RETURN_IF_ERROR(GetString(*platform, "architecture", architecture));
      HUSK_RETURN_IF_ERROR(GetString(*platform, "variant", variant));
    }
    const bool fits = os == "linux" && architecture == "amd64" && (variant.empty() || variant == "v1");
    // Without any platform, as some builders write an index of one: the config will tell.
    const bool unknown = os.empty() && architecture.empty() && manifests->size() == 1;
    if (fits || unknown) return ParseDescriptor(item, "a manifest in its index");
    constexpr std::size_t kShown = 20;
    if (platforms.size() < kShown) {
      platforms.insert(Excerpt(Concat(os, "/", architecture, variant.empty() ? "" : "/", variant)));
    }
  }
  return absl::NotFoundError(Concat("the image is not for linux/amd64, only for: ", Join(platforms, ", ")));
}

StatusOr<Manifest> ParseManifest(std::string_view text) {
  HUSK_ASSIGN_OR_RETURN(const Json json, Parse(text, "manifest"));
  Manifest manifest;
  const Json* const config = Member(json, "config");
  if (config == nullptr) return Malformed("its manifest names no config");
  HUSK_ASSIGN_OR_RETURN(manifest.config, ParseDescriptor(*config, "the config"));
  HUSK_RETURN_IF_ERROR(GetAnnotations(json, manifest.annotations));
  const Json* const layers = Member(json, "layers");
  if (layers == nullptr) return manifest;
  if (!layers->is_array()) return Malformed("its manifest's layers are not a list");
  if (layers->size() > kMaximumLayers) return Malformed("more than 512 layers");
  for (const Json& item : *layers) {
    HUSK_ASSIGN_OR_RETURN(Descriptor layer, ParseDescriptor(item, "a layer"));
    if (!IsLayerType(layer.media_type)) {
      return Malformed(Concat("layer ", layer.digest, " has the unknown media type ", Excerpt(layer.media_type)));
    }
    manifest.layers.push_back(std::move(layer));
  }
  return manifest;
}

std::string WriteAnnotations(const std::map<std::string, std::string>& annotations) {
  return annotations.empty() ? "" : Json(annotations).dump();
}

StatusOr<std::map<std::string, std::string>> ReadAnnotations(const std::string& json) {
  std::map<std::string, std::string> annotations;
  if (json.empty()) return annotations;
  Json wrapped;
  wrapped["annotations"] = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  HUSK_RETURN_IF_ERROR(GetAnnotations(wrapped, annotations));
  return annotations;
}

StatusOr<ImageConfig> ParseImageConfig(std::string_view text) {
  HUSK_ASSIGN_OR_RETURN(const Json json, Parse(text, "config"));
  std::string os;
  std::string architecture;
  HUSK_RETURN_IF_ERROR(GetString(json, "os", os));
  HUSK_RETURN_IF_ERROR(GetString(json, "architecture", architecture));
  if ((!os.empty() && os != "linux") || (!architecture.empty() && architecture != "amd64")) {
    return absl::FailedPreconditionError(
        Concat("the image is for ", Excerpt(os), "/", Excerpt(architecture), ", not linux/amd64"));
  }
  ImageConfig config;
  if (const Json* const rootfs = Member(json, "rootfs"); rootfs != nullptr) {
    HUSK_RETURN_IF_ERROR(GetStrings(*rootfs, "diff_ids", config.diff_ids));
  }
  for (const std::string& diff_id : config.diff_ids) {
    if (!IsDigest(diff_id)) {
      return Malformed(Concat("the diff-id \"", Excerpt(diff_id), "\" is not sha256: and 64 hexadecimal digits"));
    }
  }
  HUSK_RETURN_IF_ERROR(ParseRunConfig(json, config.run));
  return config;
}

Status CheckUser(std::string_view user) {
  const std::size_t colon = user.find(':');
  const std::string_view group = colon == std::string_view::npos ? "" : user.substr(colon + 1);
  if (user.substr(0, colon).size() <= kMaximumUserName && group.size() <= kMaximumUserName) return absl::OkStatus();
  return Malformed(Concat("its User \"", Excerpt(user), "\" has ", user.size(), " bytes; a user's and a group's name ",
                          "have ", kMaximumUserName, " at most"));
}

}  // namespace husk::images
