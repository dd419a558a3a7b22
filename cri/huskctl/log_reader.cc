#include "cri/huskctl/log_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"

namespace husk::huskctl {

StatusOr<LogReader::Record> LogReader::ParseRecord(std::string_view line) {
  const auto take = [&line]() {
    const std::size_t space = line.find(' ');
    const std::string_view word = line.substr(0, space);
    line.remove_prefix(space == std::string_view::npos ? line.size() : space + 1);
    return word;
  };
  take();  // the time
  const std::string_view stream = take();
  const std::string_view tag = take();
  if ((stream != "stdout" && stream != "stderr") || (tag != "P" && tag != "F")) {
    return absl::DataLossError("a line of the log is not in the CRI's format");
  }
  return Record{.is_stderr = stream == "stderr", .is_partial = tag == "P", .content = line};
}

Status LogReader::Print(std::string_view line) {
  HUSK_ASSIGN_OR_RETURN(const Record record, ParseRecord(line));
  std::FILE* const out = record.is_stderr ? stderr : stdout;
  if (!inside_line_) std::fwrite(prefix_.data(), 1, prefix_.size(), out);
  std::fwrite(record.content.data(), 1, record.content.size(), out);
  if (!record.is_partial) std::fputc('\n', out);
  inside_line_ = record.is_partial;
  return absl::OkStatus();
}

Status LogReader::ReadToEnd() {
  std::array<char, 65536> buffer{};
  for (;;) {
    const ssize_t size = read(file_.get(), buffer.data(), buffer.size());
    if (size < 0) return ErrnoStatus(errno, "read " + path_);
    if (size == 0) break;
    unfinished_.append(buffer.data(), static_cast<std::size_t>(size));
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = unfinished_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      HUSK_RETURN_IF_ERROR(Print(std::string_view(unfinished_).substr(begin, end - begin)));
    }
    unfinished_.erase(0, begin);
  }
  std::fflush(stdout);
  return absl::OkStatus();
}

Status LogReader::Pump() {
  if (file_.valid()) {
    HUSK_RETURN_IF_ERROR(ReadToEnd());
    struct stat now{};
    if (stat(path_.c_str(), &now) != 0 || (now.st_dev == device_ && now.st_ino == inode_)) return absl::OkStatus();
    // Renamed: what came between our last read and the new file is still in the old one.
    HUSK_RETURN_IF_ERROR(ReadToEnd());
  }
  UniqueFd file(open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file.valid()) return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, "open " + path_);
  struct stat opened{};
  if (fstat(file.get(), &opened) != 0) return ErrnoStatus(errno, "look at " + path_);
  file_ = std::move(file);
  device_ = opened.st_dev;
  inode_ = opened.st_ino;
  unfinished_.clear();
  return ReadToEnd();
}

}  // namespace husk::huskctl
