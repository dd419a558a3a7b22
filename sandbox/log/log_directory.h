// Opening log files where the pod's log directory says, and nowhere else.
#ifndef HUSK_SANDBOX_LOG_LOG_DIRECTORY_H_
#define HUSK_SANDBOX_LOG_LOG_DIRECTORY_H_

#include <sys/types.h>

#include <string>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::sandbox {

// The directory of one log file, held open. Not thread safe.
class LogDirectory {
 public:
  // Checks both paths (see OpenContainerLog) and makes the directories that log_path names.
  static StatusOr<LogDirectory> Open(const std::string& log_directory, const std::string& log_path);

  // The file at log_path, made if it is missing; for reading and appending. INVALID_ARGUMENT if a symlink or anything
  // but a regular file is there.
  [[nodiscard]] StatusOr<UniqueFd> OpenFile() const;
  // A regular file of this directory with that identity, whatever its name is now; NOT_FOUND if there is none.
  [[nodiscard]] StatusOr<UniqueFd> FindFile(dev_t device, ino_t inode) const;

 private:
  LogDirectory(UniqueFd directory, std::string file_name, std::string full_path)
      : directory_(std::move(directory)), file_name_(std::move(file_name)), full_path_(std::move(full_path)) {}

  UniqueFd directory_;
  std::string file_name_;
  std::string full_path_;  // for errors
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_LOG_LOG_DIRECTORY_H_
