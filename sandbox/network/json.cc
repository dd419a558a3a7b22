#include "sandbox/network/json.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"

namespace husk::sandbox {
namespace {

constexpr std::size_t kMaximumFile = std::size_t{4} << 20;

// Counted before parsing, so that a text of nothing but brackets costs no memory.
bool TooDeep(const std::string& text, std::size_t maximum_depth) {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > maximum_depth) return true;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return false;
}

const nlohmann::json* Member(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

}  // namespace

StatusOr<nlohmann::json> ParseJsonObject(const std::string& text, std::size_t maximum_depth) {
  if (TooDeep(text, maximum_depth)) return absl::InvalidArgumentError("JSON is nested too deeply");
  nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("not JSON");
  if (!json.is_object()) return absl::InvalidArgumentError("not a JSON object");
  return json;
}

std::string WriteJson(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string StringMember(const nlohmann::json& object, const char* key) {
  const nlohmann::json* member = Member(object, key);
  return member != nullptr && member->is_string() ? *member->get_ptr<const std::string*>() : "";
}

const nlohmann::json& ArrayMember(const nlohmann::json& object, const char* key) {
  static const nlohmann::json empty = nlohmann::json::array();
  const nlohmann::json* member = Member(object, key);
  return member != nullptr && member->is_array() ? *member : empty;
}

const nlohmann::json& ObjectMember(const nlohmann::json& object, const char* key) {
  static const nlohmann::json empty = nlohmann::json::object();
  const nlohmann::json* member = Member(object, key);
  return member != nullptr && member->is_object() ? *member : empty;
}

StatusOr<std::string> ReadSmallFile(const std::string& path) {
  // O_NONBLOCK: a FIFO in a configuration directory must not hold us up.
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  std::string text;
  std::array<char, 65536> buffer;  // NOLINT: read() fills it
  while (true) {
    const ssize_t count = read(file.get(), buffer.data(), buffer.size());
    if (count == 0) return text;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, absl::StrCat("read ", path));
    text.append(buffer.data(), static_cast<std::size_t>(count));
    if (text.size() > kMaximumFile) return absl::InvalidArgumentError(absl::StrCat(path, " is larger than 4 MiB"));
  }
}

}  // namespace husk::sandbox
