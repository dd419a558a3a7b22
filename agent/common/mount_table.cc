#include "agent/common/mount_table.h"

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace husk {
namespace {

bool IsOctal(absl::string_view digits) {
  return digits.size() == 3 && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '7'; });
}

// The kernel writes space, tab, newline and backslash as \ooo.
std::string Unescape(absl::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && IsOctal(text.substr(i + 1, 3))) {
      plain.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
      i += 3;
    } else {
      plain.push_back(text[i]);
    }
  }
  return plain;
}

}  // namespace

StatusOr<std::vector<Mount>> ReadMountTable(const std::string& path) {
  std::ifstream file(path);
  if (!file) return ErrnoStatus(errno, absl::StrCat("open ", path));
  std::vector<Mount> mounts;
  std::string line;
  while (std::getline(file, line)) {
    // id parent major:minor root mount_point options [optional...] - type source super_options
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    const auto dash = std::find(fields.begin() + std::min<std::ptrdiff_t>(6, std::ssize(fields)), fields.end(), "-");
    if (fields.end() - dash < 4) continue;
    Mount mount;
    if (!absl::SimpleAtoi(fields[0], &mount.id)) continue;
    mount.device = std::string(fields[2]);
    mount.root = Unescape(fields[3]);
    mount.mount_point = Unescape(fields[4]);
    mount.shared = std::any_of(fields.begin() + 6, dash,
                               [](absl::string_view field) { return absl::StartsWith(field, "shared:"); });
    mount.type = std::string(dash[1]);
    mount.super_options = absl::StrSplit(dash[3], ',');
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

const Mount* FindMount(const std::vector<Mount>& mounts, const std::string& directory) {
  const Mount* best = nullptr;
  for (const Mount& mount : mounts) {
    const bool covers = mount.mount_point == "/" || mount.mount_point == directory ||
                        absl::StartsWith(directory, absl::StrCat(mount.mount_point, "/"));
    if (covers && (best == nullptr || mount.mount_point.size() >= best->mount_point.size())) best = &mount;
  }
  return best;
}

}  // namespace husk
