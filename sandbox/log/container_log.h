// A container's log file, in the CRI's format: "<RFC3339Nano> stdout|stderr P|F <content>\n".
//
// The file itself is the journal of how far each stream was stored: after a crash the records behind the last
// checkpoint are read back and counted, a torn last record is cut off, and the streams go on at the byte after. So a
// huskd that is killed at any instant loses and repeats nothing.
#ifndef HUSK_SANDBOX_LOG_CONTAINER_LOG_H_
#define HUSK_SANDBOX_LOG_CONTAINER_LOG_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "agent/common/status.h"

namespace husk::sandbox {

enum class LogStream { kStdout, kStderr };

// Where a log file was at a moment at which its records and the offsets agreed. Kept in the store.
struct LogCheckpoint {
  std::uint64_t device = 0;  // of the file; 0 with inode 0: no file yet
  std::uint64_t inode = 0;
  std::uint64_t size = 0;           // bytes of whole records
  std::uint64_t stdout_offset = 0;  // bytes of the stream that are in the log, up to `size`
  std::uint64_t stderr_offset = 0;
};

// Not thread safe: one owner, the pod's monitor.
class ContainerLog {
 public:
  virtual ~ContainerLog() = default;

  // Takes the next bytes of a stream; `offset` is that of data's first byte. Bytes before next_offset() are skipped, a
  // gap is OUT_OF_RANGE. Whole lines are written at once; the rest of an unfinished line is kept in memory, at most
  // 16384 bytes, and not counted as stored. A longer line is cut into P records of 16384 bytes. `end`: the stream is
  // over; a last line without a newline is written as a P record, as containerd does, which tells it from one with.
  // `now`: nanoseconds since 1970. On failure (a full disk) nothing of this call is in the log, and it may be repeated.
  virtual Status Append(LogStream stream, std::uint64_t offset, std::string_view data, bool end, std::int64_t now) = 0;

  // The stream's first byte that Append has not taken yet: where to read on.
  [[nodiscard]] virtual std::uint64_t next_offset(LogStream stream) const = 0;
  // The stream's first byte that is not in the log: what may be acknowledged to the agent. At most next_offset().
  [[nodiscard]] virtual std::uint64_t stored_offset(LogStream stream) const = 0;

  // After the kubelet renamed the file: goes on in a new one of the old name.
  virtual Status Reopen() = 0;

  [[nodiscard]] virtual LogCheckpoint checkpoint() const = 0;
};

// `log_path` is relative to `log_directory` (an existing directory, absolute) and may name directories below it, which
// are made. Absolute paths, "..", symlinks anywhere below the directory and files that are not regular are refused with
// INVALID_ARGUMENT that names the path (O_NOFOLLOW, openat2 RESOLVE_BENEATH|NO_SYMLINKS). File mode 0640.
//
// With a checkpoint that names a file: finds it by inode (the kubelet may have renamed it since, within its directory),
// reads back what follows the checkpoint, and goes on, in the file at log_path. Without one: goes on at the end of
// what is there, with both offsets 0. Store the checkpoint of a new log before the container can write.
StatusOr<std::unique_ptr<ContainerLog>> OpenContainerLog(const std::string& log_directory, const std::string& log_path,
                                                         const LogCheckpoint& checkpoint);

// For a container without a log path: drops everything, and keeps the offsets.
std::unique_ptr<ContainerLog> NewDiscardingLog(const LogCheckpoint& checkpoint);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_LOG_CONTAINER_LOG_H_
