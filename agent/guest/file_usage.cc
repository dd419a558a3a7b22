#include "agent/guest/file_usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaximumDepth = 1000;
constexpr std::uint64_t kBlock = 512;  // of st_blocks, on every file system
constexpr auto kTreeLimit = std::chrono::seconds(30);
constexpr auto kShortestRest = std::chrono::seconds(5);
constexpr int kRestFactor = 20;
// The kubelet evicts by these figures: on a busy host, where each walk waits for its turn, they must not be minutes
// old.
constexpr auto kLongestRest = std::chrono::seconds(60);
constexpr auto kPatience = std::chrono::milliseconds(500);
constexpr std::size_t kMaximumOutput = std::size_t{1} << 20;

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

Directory OpenAt(int parent, const char* name) {
  const int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return nullptr;
  DIR* const directory = fdopendir(fd);
  if (directory == nullptr) close(fd);
  return Directory(directory);
}

class Walk {
 public:
  explicit Walk(std::chrono::nanoseconds limit) : until_(Clock::now() + limit) {}

  StatusOr<TreeUsage> Run(const std::string& path) {
    Directory root = OpenAt(AT_FDCWD, path.c_str());
    if (root == nullptr) return ErrnoStatus(errno, absl::StrCat("open ", path));
    struct stat attributes{};
    if (fstat(dirfd(root.get()), &attributes) != 0) return ErrnoStatus(errno, absl::StrCat("stat ", path));
    device_ = attributes.st_dev;
    Count(attributes);
    open_.push_back(std::move(root));
    while (!open_.empty()) {
      if (++steps_ % 256 == 0 && Clock::now() > until_) {
        return absl::DeadlineExceededError(absl::StrCat("walk through ", path));
      }
      const dirent* const entry = readdir(open_.back().get());
      if (entry == nullptr) {
        open_.pop_back();
      } else {
        Visit(static_cast<const char*>(entry->d_name));
      }
    }
    return TreeUsage{.used_bytes = static_cast<std::uint64_t>(std::llround(bytes_)),
                     .inodes = static_cast<std::uint64_t>(std::llround(inodes_))};
  }

 private:
  void Visit(std::string_view name) {
    if (name == "." || name == "..") return;
    const int parent = dirfd(open_.back().get());
    struct stat attributes{};
    if (fstatat(parent, name.data(), &attributes, AT_SYMLINK_NOFOLLOW) != 0 || attributes.st_dev != device_) return;
    Count(attributes);
    if (!S_ISDIR(attributes.st_mode) || open_.size() >= kMaximumDepth) return;
    if (Directory below = OpenAt(parent, name.data()); below != nullptr) open_.push_back(std::move(below));
  }

  // Each name of a file counts for its share, so that nothing has to be remembered.
  void Count(const struct stat& attributes) {
    const double names =
        S_ISDIR(attributes.st_mode) || attributes.st_nlink == 0 ? 1.0 : static_cast<double>(attributes.st_nlink);
    bytes_ += static_cast<double>(static_cast<std::uint64_t>(attributes.st_blocks) * kBlock) / names;
    inodes_ += 1.0 / names;
  }

  const Clock::time_point until_;
  dev_t device_ = 0;
  double bytes_ = 0;
  double inodes_ = 0;
  std::uint64_t steps_ = 0;
  std::vector<Directory> open_;  // from the root to where the walk is
};

std::string ReadAll(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  while (text.size() < kMaximumOutput) {
    const ssize_t count = pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(text.size()));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return text;
}

// A line of MeasureTreesMain.
std::optional<TreeUsage> ParseLine(std::string_view line) {
  const std::vector<std::string_view> words = SplitWords(line);
  TreeUsage usage;
  if (words.size() != 2 || !ParseNumber(words[0], usage.used_bytes) || !ParseNumber(words[1], usage.inodes)) {
    return std::nullopt;
  }
  return usage;
}

}  // namespace

StatusOr<TreeUsage> MeasureTree(const std::string& path, std::chrono::nanoseconds limit) {
  return Walk(limit).Run(path);
}

int MeasureTreesMain(const std::vector<std::string>& paths) {
  setpriority(PRIO_PROCESS, 0, 19);
  const rlimit descriptors{.rlim_cur = kMaximumDepth + 64, .rlim_max = kMaximumDepth + 64};
  setrlimit(RLIMIT_NOFILE, &descriptors);
  for (const std::string& path : paths) {
    const auto usage = MeasureTree(path, kTreeLimit);
    const std::string line = usage.ok() ? absl::StrCat(usage->used_bytes, " ", usage->inodes, "\n") : "-\n";
    std::fputs(line.c_str(), stdout);
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

std::chrono::nanoseconds RestAfterWalk(std::chrono::nanoseconds walk) {
  const auto longest = std::max<std::chrono::nanoseconds>(kLongestRest, walk * 2);
  return std::clamp<std::chrono::nanoseconds>(walk * kRestFactor, kShortestRest, longest);
}

FileUsageMeter::FileUsageMeter(EventLoop& loop, Children& children, std::vector<std::string> command)
    : loop_(loop), children_(children), command_(std::move(command)) {}

void FileUsageMeter::Update(const std::vector<std::string>& paths, std::function<void()> done) {
  const std::set<std::string> wanted(paths.begin(), paths.end());
  std::erase_if(figures_, [&](const auto& entry) { return !wanted.contains(entry.first); });
  std::vector<std::string> untried;
  std::copy_if(wanted.begin(), wanted.end(), std::back_inserter(untried),
               [&](const std::string& path) { return !figures_.contains(path); });
  const bool wait = !untried.empty();
  if (!walking_) {
    const bool due = Clock::now() >= next_walk_;
    const std::vector<std::string> trees = due ? std::vector<std::string>(wanted.begin(), wanted.end()) : untried;
    if (!trees.empty() && !StartWalk(trees).ok()) return done();
  }
  if (!wait) return done();
  if (waiting_.empty()) patience_ = loop_.After(kPatience, [this] { AnswerWaiting(); });
  waiting_.push_back(std::move(done));
}

std::optional<v1::FileUsage> FileUsageMeter::usage(const std::string& path) const {
  const auto found = figures_.find(path);
  if (found == figures_.end() || !found->second.usage) return std::nullopt;
  const auto age = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - found->second.measured_at);
  v1::FileUsage usage;
  usage.set_used_bytes(found->second.usage->used_bytes);
  usage.set_inodes(found->second.usage->inodes);
  usage.set_age_nanoseconds(static_cast<std::uint64_t>(std::max<std::int64_t>(0, age.count())));
  return usage;
}

Status FileUsageMeter::StartWalk(const std::vector<std::string>& paths) {
  UniqueFd output(memfd_create("file-usage", MFD_CLOEXEC));
  if (!output.valid()) return ErrnoStatus(errno, "memfd_create");
  Children::Command command{.argv = command_, .standard_output = output.get()};
  command.argv.insert(command.argv.end(), paths.begin(), paths.end());
  HUSK_RETURN_IF_ERROR(children_.Start(command, [this, paths](int) { WalkEnded(paths); }).status());
  output_ = std::move(output);
  walking_ = true;
  walk_began_ = Clock::now();
  return absl::OkStatus();
}

// Also after a walk that was killed half way: what it has written counts, the rest was tried.
void FileUsageMeter::WalkEnded(const std::vector<std::string>& paths) {
  const auto now = Clock::now();
  const std::string text = ReadAll(output_.get());
  output_.Reset();
  walking_ = false;
  next_walk_ = now + RestAfterWalk(now - walk_began_);
  const std::vector<std::string_view> lines = Split(text, '\n');
  for (std::size_t i = 0; i < paths.size(); ++i) {
    Figure& figure = figures_[paths[i]];
    if (const auto usage = i < lines.size() ? ParseLine(lines[i]) : std::nullopt) {
      figure.usage = usage;
      figure.measured_at = now;
    }
  }
  AnswerWaiting();
}

void FileUsageMeter::AnswerWaiting() {
  loop_.Cancel(patience_);
  for (const auto& done : std::exchange(waiting_, {})) done();
}

}  // namespace husk::agent
