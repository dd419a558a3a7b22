#include "sandbox/cdi/yaml_tree.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cstdint>
#include <exception>
#include <string>

#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"

namespace husk::sandbox {
namespace {

using Json = nlohmann::json;

constexpr int kMostValues = 100'000;
constexpr int kDeepest = 64;
constexpr std::size_t kShown = 200;

Json Scalar(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  // "!" is the tag of what is quoted.
  if (node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") return text;
  if (text == "true" || text == "false") return text == "true";
  if (text.empty() || text == "~" || text == "null") return nullptr;
  const bool octal = text.size() > 1 && text.front() == '0';
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, octal ? 8 : 10);
  if (error == std::errc() && end == text.data() + text.size()) return number;
  return text;
}

class Converter {
 public:
  StatusOr<Json> Convert(const YAML::Node& node, int depth) {
    if (++values_ > kMostValues) return absl::InvalidArgumentError("has too many values");
    if (depth > kDeepest) return absl::InvalidArgumentError("is nested too deep");
    switch (node.Type()) {
      case YAML::NodeType::Scalar:
        return Scalar(node);
      case YAML::NodeType::Sequence:
        return Sequence(node, depth);
      case YAML::NodeType::Map:
        return Map(node, depth);
      default:
        return Json(nullptr);
    }
  }

 private:
  StatusOr<Json> Sequence(const YAML::Node& node, int depth) {
    Json list = Json::array();
    for (const YAML::Node& item : node) {
      HUSK_ASSIGN_OR_RETURN(list.emplace_back(), Convert(item, depth + 1));
    }
    return list;
  }

  StatusOr<Json> Map(const YAML::Node& node, int depth) {
    Json object = Json::object();
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) return absl::InvalidArgumentError("has a key that is no text");
      const std::string& key = entry.first.Scalar();
      if (object.contains(key)) {
        return absl::InvalidArgumentError(absl::StrCat("has \"", Printable(key, kShown), "\" twice"));
      }
      HUSK_ASSIGN_OR_RETURN(object[key], Convert(entry.second, depth + 1));
    }
    return object;
  }

  int values_ = 0;
};

}  // namespace

StatusOr<Json> ParseYamlTree(std::string_view text) {
  try {
    return Converter().Convert(YAML::Load(std::string(text)), 0);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("line ", error.mark.line + 1, ": ", Printable(error.msg, kShown)));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(Printable(error.what(), kShown));
  }
}

}  // namespace husk::sandbox
