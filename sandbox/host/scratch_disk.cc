#include "sandbox/host/scratch_disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "agent/common/subprocess.h"
#include "agent/common/unique_fd.h"

namespace husk::sandbox {
namespace {

constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kSmallest = std::uint64_t{4} << 20;
constexpr std::uint64_t kLargest = std::uint64_t{16} << 40;
constexpr std::size_t kChunk = std::size_t{1} << 20;
// Part of the template's name: another format makes other templates.
constexpr char kFormatVersion[] = "1";

// copy_file_range stays inside the kernel; where the two files allow none, their bytes pass through here.
Status CopyRange(const Context& context, int from, int to, off_t begin, off_t end) {
  off_t in = begin;
  off_t out = begin;
  while (in < end) {
    HUSK_RETURN_IF_ERROR(context.Check());
    const auto wanted = std::min(kChunk, static_cast<std::size_t>(end - in));
    ssize_t count = copy_file_range(from, &in, to, &out, wanted, 0);
    if (count < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)) {
      std::array<char, 65536> buffer;  // NOLINT: pread() fills it
      count = pread(from, buffer.data(), std::min(wanted, buffer.size()), in);
      if (count > 0) count = pwrite(to, buffer.data(), static_cast<std::size_t>(count), out);
      if (count > 0) in = out = in + count;
    }
    if (count < 0 && errno != EINTR) return ErrnoStatus(errno, "copy");
    if (count == 0) return absl::DataLossError("the template ended early");
  }
  return absl::OkStatus();
}

Status CopySparsely(const Context& context, int from, int to, std::uint64_t bytes) {
  if (ioctl(to, FICLONE, from) == 0) return absl::OkStatus();
  if (ftruncate(to, static_cast<off_t>(bytes)) != 0) return ErrnoStatus(errno, "set the size");
  off_t position = 0;
  while (true) {
    const off_t data = lseek(from, position, SEEK_DATA);
    if (data < 0 && errno == ENXIO) return absl::OkStatus();  // only a hole is left
    if (data < 0) return ErrnoStatus(errno, "find data");
    const off_t hole = lseek(from, data, SEEK_HOLE);
    if (hole < 0) return ErrnoStatus(errno, "find a hole");
    HUSK_RETURN_IF_ERROR(CopyRange(context, from, to, data, hole));
    position = hole;
  }
}

}  // namespace

ScratchDisks::ScratchDisks(std::string directory, std::string mke2fs)
    : directory_(std::move(directory)), mke2fs_(std::move(mke2fs)) {}

Status ScratchDisks::Create(const Context& context, const std::string& path, std::uint64_t bytes) {
  if (bytes % kBlock != 0 || bytes < kSmallest || bytes > kLargest) {
    return absl::InvalidArgumentError(
        absl::StrCat("a scratch disk of ", bytes, " bytes: must be a multiple of 4096 from 4 MiB to 16 TiB"));
  }
  HUSK_ASSIGN_OR_RETURN_DOING(const std::string source, Template(context, bytes),
                              absl::StrCat("format a scratch disk of ", bytes, " bytes"));
  // Each copy opens the template anew: the position of a descriptor is shared by all who use it.
  const UniqueFd from(open(source.c_str(), O_RDONLY | O_CLOEXEC));
  if (!from.valid()) return ErrnoStatus(errno, absl::StrCat("open ", source));
  const UniqueFd to(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!to.valid()) return ErrnoStatus(errno, absl::StrCat("create scratch disk ", path));
  const Status copied = CopySparsely(context, from.get(), to.get(), bytes);
  if (!copied.ok()) unlink(path.c_str());
  return Annotate(copied, absl::StrCat("copy ", source, " to ", path));
}

StatusOr<std::string> ScratchDisks::Template(const Context& context, std::uint64_t bytes) {
  const std::string path = absl::StrCat(directory_, "/scratch-", kFormatVersion, "-", bytes, ".ext4");
  const MutexLock lock(mutex_);
  struct stat info{};
  if (stat(path.c_str(), &info) == 0 && static_cast<std::uint64_t>(info.st_size) == bytes) return path;
  std::error_code error;
  std::filesystem::create_directories(directory_, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("make ", directory_));
  // A fixed name: what a crash left is overwritten by the next attempt.
  const std::string unfinished = absl::StrCat(path, ".unfinished");
  const Status formatted = Format(context, unfinished, bytes);
  if (formatted.ok() && std::rename(unfinished.c_str(), path.c_str()) == 0) return path;
  const Status failed = formatted.ok() ? ErrnoStatus(errno, absl::StrCat("rename ", unfinished)) : formatted;
  unlink(unfinished.c_str());
  return failed;
}

Status ScratchDisks::Format(const Context& context, const std::string& path, std::uint64_t bytes) const {
  const UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("create ", path));
  if (ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) return ErrnoStatus(errno, "set the size");
  SubprocessOptions options;
  options.argv = {mke2fs_, "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", "husk-scratch", "-O",
                  "^has_journal,^resize_inode", "-E",
                  // The file is one hole: nothing to zero, here or in the guest.
                  "lazy_itable_init=1,assume_storage_prezeroed=1,nodiscard,root_owner=0:0", path};
  HUSK_ASSIGN_OR_RETURN(const auto result, RunSubprocess(context, options));
  if (result.exit_code != 0) {
    return absl::InternalError(absl::StrCat(mke2fs_, " ended with ", result.exit_code, ": ",
                                            absl::StripAsciiWhitespace(result.standard_error)));
  }
  if (fsync(file.get()) != 0) return ErrnoStatus(errno, absl::StrCat("fsync ", path));
  return absl::OkStatus();
}

}  // namespace husk::sandbox
