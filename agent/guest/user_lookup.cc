#include "agent/guest/user_lookup.h"
#include "agent/guest/text.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"

namespace husk::agent {
namespace {

constexpr std::size_t kMaximumFile = std::size_t{1} << 20;
constexpr std::int64_t kMaximumId = std::numeric_limits<std::int32_t>::max();

struct PasswdEntry {
  std::string name;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::string home;
};

bool IsNumber(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

StatusOr<std::uint32_t> CheckId(std::int64_t id, const char* what) {
  if (id < 0 || id > kMaximumId) {
    return absl::InvalidArgumentError(absl::StrCat(what, " ", id, " is not between 0 and ", kMaximumId));
  }
  return static_cast<std::uint32_t>(id);
}

std::optional<std::uint32_t> ParseId(std::string_view text) {
  std::int64_t id = 0;
  if (!IsNumber(text) || !ParseNumber(text, id) || id > kMaximumId) return std::nullopt;
  return static_cast<std::uint32_t>(id);
}

// Lines that are not well formed are skipped, as libc does.
template <typename Match>
std::optional<PasswdEntry> FindPasswd(std::string_view passwd, Match match) {
  for (const std::string_view line : Split(passwd, '\n')) {
    const std::vector<std::string_view> fields = Split(line, ':');
    if (fields.size() < 6 || fields[0].empty() || fields[0][0] == '#') continue;
    const auto uid = ParseId(fields[2]);
    const auto gid = ParseId(fields[3]);
    if (!uid || !gid) continue;
    PasswdEntry entry{.name = std::string(fields[0]), .uid = *uid, .gid = *gid, .home = std::string(fields[5])};
    if (match(entry)) return entry;
  }
  return std::nullopt;
}

std::optional<std::uint32_t> FindGroup(std::string_view group, std::string_view name) {
  for (const std::string_view line : Split(group, '\n')) {
    const std::vector<std::string_view> fields = Split(line, ':');
    if (fields.size() >= 3 && fields[0] == name) return ParseId(fields[2]);
  }
  return std::nullopt;
}

// The groups that list `user` as a member.
std::vector<std::uint32_t> GroupsOf(std::string_view group, std::string_view user) {
  std::vector<std::uint32_t> gids;
  for (const std::string_view line : Split(group, '\n')) {
    const std::vector<std::string_view> fields = Split(line, ':');
    if (fields.size() < 4) continue;
    const auto gid = ParseId(fields[2]);
    const std::vector<std::string_view> members = Split(fields[3], ',');
    if (gid && std::find(members.begin(), members.end(), user) != members.end()) gids.push_back(*gid);
  }
  return gids;
}

struct Found {
  std::uint32_t uid = 0;
  std::optional<PasswdEntry> entry;
};

StatusOr<Found> FindByName(std::string_view passwd, const std::string& name) {
  auto entry = FindPasswd(passwd, [&](const PasswdEntry& candidate) { return candidate.name == name; });
  if (!entry) return absl::InvalidArgumentError(absl::StrCat("the image has no user \"", name, "\""));
  const std::uint32_t uid = entry->uid;
  return Found{.uid = uid, .entry = std::move(entry)};
}

StatusOr<Found> FindByUid(std::string_view passwd, std::int64_t id) {
  HUSK_ASSIGN_OR_RETURN(const std::uint32_t uid, CheckId(id, "user id"));
  return Found{.uid = uid,
               .entry = FindPasswd(passwd, [&](const PasswdEntry& candidate) { return candidate.uid == uid; })};
}

StatusOr<Found> FindByNameOrNumber(std::string_view passwd, const std::string& text) {
  if (text.empty()) return FindByUid(passwd, 0);
  std::int64_t id = 0;
  if (ParseNumber(text, id)) {
    // A name of digits that the image has wins, as in every other runtime.
    auto named = FindByName(passwd, text);
    return named.ok() ? std::move(named) : FindByUid(passwd, id);
  }
  if (IsNumber(text)) return absl::InvalidArgumentError(absl::StrCat("user id ", text, " is too large"));
  return FindByName(passwd, text);
}

StatusOr<std::uint32_t> FindGroupByNameOrNumber(std::string_view group, const std::string& text) {
  if (const auto gid = FindGroup(group, text)) return *gid;
  std::int64_t id = 0;
  if (ParseNumber(text, id)) return CheckId(id, "group id");
  if (IsNumber(text)) return absl::InvalidArgumentError(absl::StrCat("group id ", text, " is too large"));
  return absl::InvalidArgumentError(absl::StrCat("the image has no group \"", text, "\""));
}

StatusOr<std::string> ReadInRoot(const std::string& root, const char* path) {
  const UniqueFd directory(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return ErrnoStatus(errno, absl::StrCat("open ", root));
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const UniqueFd file(static_cast<int>(syscall(SYS_openat2, directory.get(), path, &how, sizeof(how))));
  if (!file.valid()) {
    if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) return std::string();
    return ErrnoStatus(errno, absl::StrCat("open the image's ", path));
  }
  struct stat info{};
  // A device or a fifo named /etc/passwd is nothing to read from.
  if (fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return std::string();
  std::string contents;
  std::array<char, 65536> buffer;  // NOLINT: read() fills it
  while (contents.size() < kMaximumFile) {
    const ssize_t count = read(file.get(), buffer.data(), std::min(buffer.size(), kMaximumFile - contents.size()));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, absl::StrCat("read the image's ", path));
    if (count == 0) break;
    contents.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return contents;
}

}  // namespace

StatusOr<ResolvedUser> ResolveUser(const v1::User& user, std::string_view passwd, std::string_view group) {
  std::string user_part = user.image_user();
  std::string group_part;
  if (const auto colon = user_part.find(':'); colon != std::string::npos) {
    group_part = user_part.substr(colon + 1);
    user_part.resize(colon);
  }
  auto looked_up = user.has_uid()             ? FindByUid(passwd, user.uid())
                   : !user.username().empty() ? FindByName(passwd, user.username())
                                              : FindByNameOrNumber(passwd, user_part);
  HUSK_ASSIGN_OR_RETURN(const Found found, std::move(looked_up));

  ResolvedUser result;
  result.uid = found.uid;
  if (found.entry) {
    result.gid = found.entry->gid;
    if (!found.entry->home.empty()) result.home = found.entry->home;
    if (!user.strict_supplemental_groups()) result.additional_gids = GroupsOf(group, found.entry->name);
  }
  const bool from_image = !user.has_uid() && user.username().empty();
  if (user.has_gid()) {
    HUSK_ASSIGN_OR_RETURN(result.gid, CheckId(user.gid(), "group id"));
  } else if (from_image && !group_part.empty()) {
    HUSK_ASSIGN_OR_RETURN(result.gid, FindGroupByNameOrNumber(group, group_part));
  }
  for (const std::uint32_t gid : user.supplemental_gids()) {
    HUSK_RETURN_IF_ERROR(CheckId(gid, "supplemental group id").status());
    result.additional_gids.push_back(gid);
  }
  auto& gids = result.additional_gids;
  std::sort(gids.begin(), gids.end());
  gids.erase(std::unique(gids.begin(), gids.end()), gids.end());
  gids.erase(std::remove(gids.begin(), gids.end(), result.gid), gids.end());
  return result;
}

StatusOr<ResolvedUser> ResolveUserIn(const std::string& root, const v1::User& user) {
  HUSK_ASSIGN_OR_RETURN(const std::string passwd, ReadInRoot(root, "etc/passwd"));
  HUSK_ASSIGN_OR_RETURN(const std::string group, ReadInRoot(root, "etc/group"));
  return ResolveUser(user, passwd, group);
}

}  // namespace husk::agent
