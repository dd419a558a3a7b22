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

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"

namespace husk::agent {
namespace {

// Larger files are refused rather than cut: a user whose line was cut off would get group 0 and none of its groups.
constexpr std::size_t kMaximumFile = std::size_t{1} << 20;
// As runc and crun have it; the kernel would take more.
constexpr std::int64_t kMaximumId = std::numeric_limits<std::int32_t>::max();
// The kernel's own limits, NGROUPS_MAX and PATH_MAX.
constexpr std::size_t kMaximumGroups = 65536;
constexpr std::size_t kMaximumHome = 4096;

// Untrusted text as a message may hold it.
std::string Quoted(std::string_view text) {
  constexpr std::size_t kShown = 100;
  const std::string_view shown = text.substr(0, kShown);
  return absl::StrCat("\"", absl::CHexEscape(absl::string_view(shown.data(), shown.size())),
                      shown.size() < text.size() ? "...\"" : "\"");
}

bool IsDigits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Whether the text is to be read as a number, be it one that is out of range.
bool IsNumber(std::string_view text) {
  return IsDigits(text.starts_with('-') ? text.substr(1) : text);
}

StatusOr<std::uint32_t> CheckId(std::int64_t id, const char* what) {
  if (id < 0 || id > kMaximumId) {
    return absl::InvalidArgumentError(absl::StrCat(what, " ", id, " is not between 0 and ", kMaximumId));
  }
  return static_cast<std::uint32_t>(id);
}

StatusOr<std::uint32_t> CheckId(std::string_view text, const char* what) {
  std::int64_t id = 0;
  if (ParseNumber(text, id)) return CheckId(id, what);
  return absl::InvalidArgumentError(absl::StrCat(what, " ", Quoted(text), " is not between 0 and ", kMaximumId));
}

// The parts of a text between separators, empty ones included, one at a time: the files may have a million.
class Parts {
 public:
  Parts(std::string_view text, char separator) : rest_(text), separator_(separator) {}
  std::optional<std::string_view> Next() {
    if (done_) return std::nullopt;
    const std::size_t end = rest_.find(separator_);
    const std::string_view part = rest_.substr(0, end);
    done_ = end == std::string_view::npos;
    rest_.remove_prefix(done_ ? rest_.size() : end + 1);
    return part;
  }

 private:
  std::string_view rest_;
  const char separator_;
  bool done_ = false;
};

using Values = std::array<std::string_view, 6>;

// A line's first fields. Those of passwd that count are six, those of group four.
struct Fields {
  explicit Fields(std::string_view line) {
    Parts parts(line, ':');
    for (auto part = parts.Next(); part && count < values.size(); part = parts.Next()) values.at(count++) = *part;
  }
  Values values;
  std::size_t count = 0;
};

// The first line of at least `least` fields that matches. Comments are none.
template <typename Match>
std::optional<Fields> FindLine(std::string_view file, std::size_t least, Match match) {
  Parts lines(file, '\n');
  while (const auto line = lines.Next()) {
    if (line->starts_with('#')) continue;
    const Fields fields(*line);
    if (fields.count >= least && match(fields.values)) return fields;
  }
  return std::nullopt;
}

std::optional<std::uint32_t> ParseId(std::string_view text) {
  std::int64_t id = 0;
  if (!IsDigits(text) || !ParseNumber(text, id) || id > kMaximumId) return std::nullopt;
  return static_cast<std::uint32_t>(id);
}

// A user of the image, or a mere number.
struct Found {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::string_view name;  // empty: no line of passwd has the number
  std::string_view home;
};

constexpr std::size_t kPasswdFields = 6;
constexpr std::size_t kGroupFields = 3;

StatusOr<Found> FindByName(std::string_view passwd, std::string_view name) {
  const auto line = FindLine(passwd, kPasswdFields, [&](const Values& fields) { return fields[0] == name; });
  if (!line) return absl::InvalidArgumentError(absl::StrCat("the image has no user ", Quoted(name)));
  const auto& fields = line->values;
  const auto uid = ParseId(fields[2]);
  const auto gid = ParseId(fields[3]);
  if (!uid || !gid) {
    return absl::InvalidArgumentError(absl::StrCat("the image's /etc/passwd gives user ", Quoted(name), " the ids ",
                                                   Quoted(fields[2]), " and ", Quoted(fields[3]),
                                                   ", which are not both between 0 and ", kMaximumId));
  }
  return Found{.uid = *uid, .gid = *gid, .name = fields[0], .home = fields[5]};
}

// Lines that are not well formed are skipped, as libc does.
Found FindByUid(std::string_view passwd, std::uint32_t uid) {
  const auto line = FindLine(passwd, kPasswdFields, [&](const Values& fields) {
    return ParseId(fields[2]) == uid && ParseId(fields[3]) && !fields[0].empty();
  });
  if (!line) return {.uid = uid, .gid = 0, .name = {}, .home = {}};
  const auto& fields = line->values;
  return {.uid = uid, .gid = *ParseId(fields[3]), .name = fields[0], .home = fields[5]};
}

// An image's own words. Digits are a number even if a user has such a name: the kubelet has been told the number, and
// has judged by it whether the container runs as root. containerd reads it so, too.
StatusOr<Found> FindByNumberOrName(std::string_view passwd, std::string_view text) {
  if (text.empty()) return FindByUid(passwd, 0);
  if (!IsNumber(text)) return FindByName(passwd, text);
  HUSK_ASSIGN_OR_RETURN(const std::uint32_t uid, CheckId(text, "user id"));
  return FindByUid(passwd, uid);
}

StatusOr<std::uint32_t> FindGroupByNumberOrName(std::string_view group, std::string_view text) {
  if (IsNumber(text)) return CheckId(text, "group id");
  const auto line = FindLine(group, kGroupFields, [&](const Values& fields) { return fields[0] == text; });
  if (!line) return absl::InvalidArgumentError(absl::StrCat("the image has no group ", Quoted(text)));
  if (const auto gid = ParseId(line->values[2])) return *gid;
  return absl::InvalidArgumentError(absl::StrCat("the image's /etc/group gives group ", Quoted(text), " the id ",
                                                 Quoted(line->values[2]), ", which is not between 0 and ", kMaximumId));
}

bool IsListed(std::string_view members, std::string_view user) {
  Parts names(members, ',');
  auto name = names.Next();
  while (name && *name != user) name = names.Next();
  return name.has_value();
}

// The groups that list `user` as a member.
std::vector<std::uint32_t> GroupsOf(std::string_view group, std::string_view user) {
  std::vector<std::uint32_t> gids;
  Parts lines(group, '\n');
  while (const auto line = lines.Next()) {
    const Fields fields(*line);
    const auto gid = fields.count > kGroupFields ? ParseId(fields.values[2]) : std::nullopt;
    if (gid && IsListed(fields.values[3], user)) gids.push_back(*gid);
  }
  return gids;
}

// Sorted, each once, with the main one among them: a program that changes its main group (by setgid of a file, say)
// must not lose the old one, because modes such as 0705 keep the members of a group out.
Status Tidy(std::vector<std::uint32_t>& gids, std::uint32_t main_gid) {
  gids.push_back(main_gid);
  std::sort(gids.begin(), gids.end());
  gids.erase(std::unique(gids.begin(), gids.end()), gids.end());
  if (gids.size() <= kMaximumGroups) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the user would have ", gids.size(),
                                                 " supplementary groups, by the image's /etc/group and the ",
                                                 "container's own; ", kMaximumGroups, " are allowed"));
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
    return ErrnoStatus(errno, absl::StrCat("open the image's /", path));
  }
  struct stat info{};
  // A device or a fifo named /etc/passwd is nothing to read from.
  if (fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return std::string();
  std::string contents;
  std::array<char, 65536> buffer;  // NOLINT: read() fills it
  while (contents.size() <= kMaximumFile) {
    const ssize_t count = read(file.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, absl::StrCat("read the image's /", path));
    if (count == 0) return contents;
    contents.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return absl::InvalidArgumentError(absl::StrCat("the image's /", path, " is larger than ", kMaximumFile, " bytes"));
}

}  // namespace

StatusOr<ResolvedUser> ResolveUser(const v1::User& user, std::string_view passwd, std::string_view group) {
  std::string_view user_part = user.image_user();
  std::string_view group_part;
  if (const auto colon = user_part.find(':'); colon != std::string_view::npos) {
    group_part = user_part.substr(colon + 1);
    user_part = user_part.substr(0, colon);
  }
  const bool from_image = !user.has_uid() && user.username().empty();
  Found found;
  if (user.has_uid()) {
    HUSK_ASSIGN_OR_RETURN(const std::uint32_t uid, CheckId(user.uid(), "user id"));
    found = FindByUid(passwd, uid);
  } else if (!from_image) {
    HUSK_ASSIGN_OR_RETURN(found, FindByName(passwd, user.username()));
  } else {
    HUSK_ASSIGN_OR_RETURN_DOING(found, FindByNumberOrName(passwd, user_part), "the image's USER");
  }

  ResolvedUser result;
  result.uid = found.uid;
  result.gid = found.gid;
  if (found.home.size() > kMaximumHome) {
    return absl::InvalidArgumentError(absl::StrCat("the image's /etc/passwd gives user ", Quoted(found.name),
                                                   " a home directory longer than ", kMaximumHome, " bytes"));
  }
  if (!found.home.empty()) result.home = found.home;
  if (user.has_gid()) {
    HUSK_ASSIGN_OR_RETURN(result.gid, CheckId(user.gid(), "group id"));
  } else if (from_image && !group_part.empty()) {
    HUSK_ASSIGN_OR_RETURN_DOING(result.gid, FindGroupByNumberOrName(group, group_part), "the image's USER");
  }
  if (!found.name.empty() && !user.strict_supplemental_groups()) result.additional_gids = GroupsOf(group, found.name);
  for (const std::uint32_t gid : user.supplemental_gids()) {
    HUSK_RETURN_IF_ERROR(CheckId(std::int64_t{gid}, "supplemental group id").status());
    result.additional_gids.push_back(gid);
  }
  HUSK_RETURN_IF_ERROR(Tidy(result.additional_gids, result.gid));
  return result;
}

StatusOr<ResolvedUser> ResolveUserIn(const std::string& root, const v1::User& user) {
  HUSK_ASSIGN_OR_RETURN(const std::string passwd, ReadInRoot(root, "etc/passwd"));
  HUSK_ASSIGN_OR_RETURN(const std::string group, ReadInRoot(root, "etc/group"));
  return ResolveUser(user, passwd, group);
}

}  // namespace husk::agent
