#include "images/hosts_file.h"

// toml++ asserts, or with NDEBUG lets the compiler assume, that a key in brackets begins like one. In malformed text it
// need not, and what follows says so with an error.
#undef NDEBUG
#define TOML_ASSERT(expression) static_cast<void>(0)
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <utility>

#include "images/text.h"
#include "images/text_file.h"
#include "images/url.h"

namespace husk::images {
namespace {

// One file on its way into settings.
class Reader {
 public:
  explicit Reader(std::string path) : path_(std::move(path)), directory_(std::filesystem::path(path_).parent_path()) {}

  StatusOr<HostsFile> Parse(std::string_view text) const;

 private:
  struct Entry {
    std::string key;
    const toml::node* node;
    toml::source_index line;
  };

  [[nodiscard]] Status Fault(toml::source_index line, std::string_view message) const {
    return absl::FailedPreconditionError(Concat(path_, ":", line, ": ", message));
  }
  [[nodiscard]] Status Fault(const toml::node& node, std::string_view message) const {
    return Fault(node.source().begin.line, message);
  }
  [[nodiscard]] Status AtLine(const toml::node& node, const Status& status) const {
    return status.ok() ? status : Fault(node, std::string(status.message()));
  }
  [[nodiscard]] std::string Absolute(const std::string& file) const { return (directory_ / file).string(); }

  // The table's entries in the order of the file, which toml++ keeps in that of their names.
  static std::vector<Entry> InOrder(const toml::table& table);

  StatusOr<std::string> Text(const toml::node& node, std::string_view expected) const;
  StatusOr<bool> Boolean(const toml::node& node) const;
  StatusOr<std::string> Address(const toml::node& node, const std::string& text) const;
  Status Set(const Entry& entry, HostSettings* settings) const;
  Status SetCapabilities(const toml::node& node, HostSettings* settings) const;
  Status SetAuthorities(const toml::node& node, HostSettings* settings) const;
  Status SetClients(const toml::node& node, HostSettings* settings) const;
  Status SetHeaders(const toml::node& node, HostSettings* settings) const;
  Status AddHeader(const toml::node& node, const std::string& name, HostSettings* settings) const;
  Status SetDialTimeout(const toml::node& node, HostSettings* settings) const;

  const std::string path_;
  const std::filesystem::path directory_;
};

std::vector<Reader::Entry> Reader::InOrder(const toml::table& table) {
  struct Placed {
    Entry entry;
    toml::source_position position;
  };
  std::vector<Placed> placed;
  placed.reserve(table.size());
  for (const auto& [key, node] : table) {
    placed.push_back({{std::string(key.str()), &node, key.source().begin.line}, key.source().begin});
  }
  std::sort(placed.begin(), placed.end(),
            [](const Placed& left, const Placed& right) { return left.position < right.position; });
  std::vector<Entry> entries;
  entries.reserve(placed.size());
  for (Placed& one : placed) entries.push_back(std::move(one.entry));
  return entries;
}

StatusOr<std::string> Reader::Text(const toml::node& node, std::string_view expected) const {
  const auto* const text = node.as_string();
  if (text == nullptr) return Fault(node, Concat("expected ", expected));
  return text->get();
}

StatusOr<bool> Reader::Boolean(const toml::node& node) const {
  const auto* const value = node.as_boolean();
  if (value == nullptr) return Fault(node, "expected true or false");
  return value->get();
}

StatusOr<std::string> Reader::Address(const toml::node& node, const std::string& text) const {
  std::string address = text.find("://") == std::string::npos ? "https://" + text : text;
  const StatusOr<Url> url = ParseUrl(address);
  if (!url.ok()) return Fault(node, std::string(url.status().message()));
  if (url->scheme != "https" && url->scheme != "http")
    return Fault(node, Concat(Excerpt(text), ": neither https nor http"));
  return address;
}

Status Reader::SetCapabilities(const toml::node& node, HostSettings* settings) const {
  const toml::array* const list = node.as_array();
  if (list == nullptr) return Fault(node, "capabilities: expected a list of \"pull\" and \"resolve\"");
  if (list->empty()) return absl::OkStatus();
  settings->pull = settings->resolve = false;
  for (const toml::node& item : *list) {
    HUSK_ASSIGN_OR_RETURN(const std::string name, Text(item, "\"pull\" or \"resolve\""));
    const std::string lower = ToLower(name);
    if (lower == "pull") {
      settings->pull = true;
    } else if (lower == "resolve") {
      settings->resolve = true;
    } else if (lower != "push") {
      return Fault(item, Concat("capabilities: \"", Excerpt(name), "\" is none of pull, resolve and push"));
    }
  }
  return absl::OkStatus();
}

Status Reader::SetAuthorities(const toml::node& node, HostSettings* settings) const {
  settings->has_tls = true;
  const auto add = [&](const toml::node& item) -> Status {
    HUSK_ASSIGN_OR_RETURN(const std::string file, Text(item, "ca = a file, or a list of files"));
    return AtLine(item, AddAuthority(Absolute(file), &settings->tls));
  };
  const toml::array* const list = node.as_array();
  if (list == nullptr) return add(node);
  for (const toml::node& item : *list) HUSK_RETURN_IF_ERROR(add(item));
  return absl::OkStatus();
}

Status Reader::SetClients(const toml::node& node, HostSettings* settings) const {
  constexpr std::string_view kExpected = "client = a file, a list of files, or a list of pairs [certificate, key]";
  settings->has_tls = true;
  const auto add = [&](const toml::node& item) -> Status {
    std::array<std::string, 2> files;
    if (const toml::array* const pair = item.as_array(); pair != nullptr) {
      if (pair->size() != files.size()) return Fault(item, Concat("expected ", kExpected));
      for (std::size_t i = 0; i < files.size(); ++i) {
        HUSK_ASSIGN_OR_RETURN(files[i], Text(*pair->get(i), kExpected));
      }
    } else {
      HUSK_ASSIGN_OR_RETURN(files[0], Text(item, kExpected));
      files[1] = files[0];
    }
    // An empty key is in the certificate's file too.
    if (files[1].empty()) files[1] = files[0];
    return AtLine(item, AddClient(Absolute(files[0]), Absolute(files[1]), &settings->tls));
  };
  const toml::array* const list = node.as_array();
  if (list == nullptr) return add(node);
  for (const toml::node& item : *list) HUSK_RETURN_IF_ERROR(add(item));
  return absl::OkStatus();
}

Status Reader::AddHeader(const toml::node& node, const std::string& name, HostSettings* settings) const {
  HUSK_ASSIGN_OR_RETURN(const std::string value, Text(node, "a header's value: a string, or a list of strings"));
  const auto is_control = [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); };
  const bool bad_name = name.empty() || name.find_first_of(" \t:") != std::string::npos ||
                        std::any_of(name.begin(), name.end(), is_control);
  if (bad_name || std::any_of(value.begin(), value.end(), is_control)) {
    // The value may be a secret.
    return Fault(node, Concat("header \"", Excerpt(name), "\": not fit for a header"));
  }
  if (ToLower(name) == "authorization") {
    settings->authorization = value;
  } else {
    settings->headers.push_back(Concat(name, ": ", value));
  }
  return absl::OkStatus();
}

Status Reader::SetHeaders(const toml::node& node, HostSettings* settings) const {
  const toml::table* const table = node.as_table();
  if (table == nullptr) return Fault(node, "header: expected a table of names and values");
  for (const Entry& entry : InOrder(*table)) {
    const toml::array* const list = entry.node->as_array();
    if (list == nullptr) {
      HUSK_RETURN_IF_ERROR(AddHeader(*entry.node, entry.key, settings));
      continue;
    }
    for (const toml::node& item : *list) HUSK_RETURN_IF_ERROR(AddHeader(item, entry.key, settings));
  }
  return absl::OkStatus();
}

Status Reader::SetDialTimeout(const toml::node& node, HostSettings* settings) const {
  constexpr std::string_view kExpected = "dial_timeout = a time such as \"3s\" or \"500ms\"";
  HUSK_ASSIGN_OR_RETURN(const std::string text, Text(node, kExpected));
  long long number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit = std::string_view(text).substr(static_cast<std::size_t>(end - text.data()));
  constexpr long long kLongest = 600'000;
  const long long factor = unit == "ms" ? 1 : unit == "s" ? 1000 : unit == "m" ? 60'000 : 0;
  if (error != std::errc() || factor == 0 || number <= 0 || number > kLongest / factor) {
    return Fault(node, Concat("expected ", kExpected, ", at most ten minutes"));
  }
  settings->dial_timeout = std::chrono::milliseconds(number * factor);
  return absl::OkStatus();
}

Status Reader::Set(const Entry& entry, HostSettings* settings) const {
  const toml::node& node = *entry.node;
  if (entry.key == "capabilities") return SetCapabilities(node, settings);
  if (entry.key == "ca") return SetAuthorities(node, settings);
  if (entry.key == "client") return SetClients(node, settings);
  if (entry.key == "header") return SetHeaders(node, settings);
  if (entry.key == "dial_timeout") return SetDialTimeout(node, settings);
  if (entry.key == "skip_verify") {
    HUSK_ASSIGN_OR_RETURN(settings->tls.skip_verify, Boolean(node));
    settings->has_tls = true;
    return absl::OkStatus();
  }
  if (entry.key == "override_path") {
    HUSK_ASSIGN_OR_RETURN(settings->override_path, Boolean(node));
    return absl::OkStatus();
  }
  return Fault(entry.line, Concat("unknown key \"", Excerpt(entry.key), "\""));
}

StatusOr<HostsFile> Reader::Parse(std::string_view text) const {
  const toml::parse_result parsed = toml::parse(text, path_);
  if (!parsed) return Fault(parsed.error().source().begin.line, Excerpt(parsed.error().description()));
  HostsFile hosts;
  for (const Entry& entry : InOrder(parsed.table())) {
    if (entry.key == "server") {
      HUSK_ASSIGN_OR_RETURN(const std::string address, Text(*entry.node, "server = a URL"));
      if (address.empty()) continue;
      HUSK_ASSIGN_OR_RETURN(hosts.server.address, Address(*entry.node, address));
    } else if (entry.key == "host") {
      const toml::table* const table = entry.node->as_table();
      if (table == nullptr) return Fault(*entry.node, "expected [host.\"https://HOST\"]");
      for (const Entry& host : InOrder(*table)) {
        const toml::table* const keys = host.node->as_table();
        if (keys == nullptr) return Fault(*host.node, "expected [host.\"https://HOST\"]");
        HostSettings mirror;
        HUSK_ASSIGN_OR_RETURN(mirror.address, Address(*host.node, host.key));
        for (const Entry& key : InOrder(*keys)) HUSK_RETURN_IF_ERROR(Set(key, &mirror));
        hosts.mirrors.push_back(std::move(mirror));
      }
    } else {
      HUSK_RETURN_IF_ERROR(Set(entry, &hosts.server));
    }
  }
  return hosts;
}

}  // namespace

StatusOr<HostsFile> ReadHostsFile(const std::string& path) {
  constexpr std::size_t kMostMib = 1;
  HUSK_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kMostMib));
  return ParseHostsFile(text, path);
}

StatusOr<HostsFile> ParseHostsFile(std::string_view text, const std::string& path) {
  return Reader(path).Parse(text);
}

}  // namespace husk::images
