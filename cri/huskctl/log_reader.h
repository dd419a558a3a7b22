// Reads a container's log file in the CRI's format and prints what the container wrote.
#ifndef HUSK_CRI_HUSKCTL_LOG_READER_H_
#define HUSK_CRI_HUSKCTL_LOG_READER_H_

#include <sys/types.h>

#include <string>
#include <string_view>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::huskctl {

// Follows one file, also through its renaming by a log rotation. Not thread safe.
class LogReader {
 public:
  // `prefix` goes before each line, for several containers at once.
  LogReader(std::string path, std::string prefix) : path_(std::move(path)), prefix_(std::move(prefix)) {}

  // Prints what is new, stdout's to standard output and stderr's to standard error. OK while there is no file yet.
  Status Pump();

  // One record without its newline: "<time> stdout|stderr P|F <content>". Public for the tests: what is to be printed,
  // and whether to standard error.
  struct Record {
    bool is_stderr = false;
    bool is_partial = false;
    std::string_view content;
  };
  static StatusOr<Record> ParseRecord(std::string_view line);

 private:
  Status ReadToEnd();
  Status Print(std::string_view line);

  const std::string path_;
  const std::string prefix_;
  UniqueFd file_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  std::string unfinished_;
  bool inside_line_ = false;
};

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_LOG_READER_H_
