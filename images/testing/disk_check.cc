#include "images/testing/disk_check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "agent/common/context.h"
#include "agent/common/subprocess.h"
#include "images/digest.h"
#include "images/text.h"

namespace husk::images::testing {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return std::move(bytes).str();
}

char TypeLetter(mode_t mode) {
  if (S_ISREG(mode)) return '-';
  if (S_ISDIR(mode)) return 'd';
  if (S_ISLNK(mode)) return 'l';
  if (S_ISCHR(mode)) return 'c';
  if (S_ISBLK(mode)) return 'b';
  return S_ISFIFO(mode) ? 'p' : '?';
}

std::string Describe(const std::string& path, const std::string& shown) {
  struct stat info{};
  if (lstat(path.c_str(), &info) != 0) return shown + " cannot be read";
  std::stringstream line;
  line << shown << ' ' << TypeLetter(info.st_mode) << ' ' << std::oct << (info.st_mode & 07777) << std::dec << ' '
       << info.st_uid << ' ' << info.st_gid << ' ' << info.st_mtim.tv_sec << ' ' << info.st_nlink;
  if (S_ISREG(info.st_mode)) line << ' ' << info.st_size << ' ' << DigestHex(DigestOf(ReadAll(path)));
  if (S_ISLNK(info.st_mode)) line << ' ' << std::filesystem::read_symlink(path).string();
  if (!S_ISREG(info.st_mode) && !S_ISLNK(info.st_mode) && !S_ISDIR(info.st_mode)) {
    line << ' ' << major(info.st_rdev) << ':' << minor(info.st_rdev);
  }
  return line.str();
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() : path_("/tmp/husk-images-test-XXXXXX") {
  if (mkdtemp(path_.data()) == nullptr) std::abort();
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::size_t CountFiles(const std::string& directory) {
  const auto begin = std::filesystem::directory_iterator(directory);
  return static_cast<std::size_t>(std::distance(begin, std::filesystem::directory_iterator()));
}

Status Concatenate(const std::vector<DiskPart>& parts, const std::string& path) {
  std::ofstream out(path, std::ios::binary);
  for (const DiskPart& part : parts) {
    const std::string bytes = ReadAll(part.path);
    if (bytes.size() != part.length || part.length % 4096 != 0) {
      return absl::InternalError(Concat(part.path, " has ", bytes.size(), " bytes, the disk says ", part.length));
    }
    out << bytes;
  }
  out.close();
  return out ? absl::OkStatus() : absl::InternalError("cannot write " + path);
}

StatusOr<std::string> RunTool(const std::vector<std::string>& argv) {
  constexpr auto kLimit = std::chrono::minutes(3);
  SubprocessOptions options{.argv = argv};
  HUSK_ASSIGN_OR_RETURN(const SubprocessResult result,
                        RunSubprocess(Context::Background().WithTimeout(kLimit), options));
  if (result.exit_code == 0) return result.standard_output;
  return absl::InternalError(
      Concat(argv[0], " exits with ", result.exit_code, ": ", result.standard_output, result.standard_error));
}

Status FsckAndExtract(const std::string& disk, const std::string& directory) {
  return RunTool({"/usr/bin/fsck.erofs", "--extract=" + directory, "--preserve", disk}).status();
}

bool CanMountErofs(std::string& reason) {
  const std::string known = ReadAll("/proc/filesystems");
  if (known.find("\terofs\n") == std::string::npos && !RunTool({"/sbin/modprobe", "erofs"}).ok()) {
    reason = "this kernel has no EROFS";
    return false;
  }
  struct stat info{};
  if (stat("/dev/loop-control", &info) != 0) reason = "there is no /dev/loop-control";
  if (geteuid() != 0) reason = "not root";
  return reason.empty();
}

std::set<std::string> DescribeTree(const std::string& root) {
  std::set<std::string> lines = {Describe(root, "/")};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    lines.insert(Describe(entry.path().string(), entry.path().string().substr(root.size())));
  }
  return lines;
}

ErofsMount::ErofsMount(const std::string& disk, const std::string& directory) : directory_(directory) {
  std::filesystem::create_directories(directory);
  status_ = RunTool({"/bin/mount", "-t", "erofs", "-o", "loop,ro", disk, directory}).status();
}

ErofsMount::~ErofsMount() {
  if (status_.ok()) static_cast<void>(RunTool({"/bin/umount", directory_}));
}

}  // namespace husk::images::testing
