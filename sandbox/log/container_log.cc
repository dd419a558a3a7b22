#include "sandbox/log/container_log.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/log/log_directory.h"
#include "sandbox/log/log_record.h"

namespace husk::sandbox {
namespace {

std::size_t Index(LogStream stream) {
  return stream == LogStream::kStdout ? 0 : 1;
}

// What both kinds of log share: how far each stream came.
struct Position {
  std::uint64_t stored = 0;
  std::string unfinished;  // bytes after `stored` that are no whole line yet

  [[nodiscard]] std::uint64_t next() const { return stored + unfinished.size(); }
};

// Cuts off what was taken before. OUT_OF_RANGE for a gap.
StatusOr<std::string_view> NewBytes(const Position& position, std::uint64_t offset, std::string_view data) {
  if (offset > position.next()) {
    return absl::OutOfRangeError(
        absl::StrCat("log bytes from offset ", offset, " on, but the stream is at ", position.next()));
  }
  const std::uint64_t known = std::min<std::uint64_t>(position.next() - offset, data.size());
  return data.substr(known);
}

// How many bytes of records are written at once. Empty lines become forty times as long.
constexpr std::size_t kBatch = std::size_t{1} << 20;

// Moves whole lines, and pieces of long ones, from the front of `text` to records, until these are a batch; the bytes
// that were moved.
std::size_t CutRecords(std::string& out, const RecordWriter& writer, std::string_view text, bool end) {
  std::size_t taken = 0;
  while (taken < text.size() && out.size() < kBatch) {
    const std::string_view rest = text.substr(taken);
    // One byte more than fits: a newline right after a full piece makes it the whole line.
    const auto newline = rest.substr(0, kMaximumRecordContent + 1).find('\n');
    if (newline != std::string_view::npos) {
      writer.Append(out, false, rest.substr(0, newline));
      taken += newline + 1;
    } else if (rest.size() > kMaximumRecordContent || end) {
      const std::string_view piece = rest.substr(0, kMaximumRecordContent);
      writer.Append(out, true, piece);
      taken += piece.size();
    } else {
      break;
    }
  }
  return taken;
}

StatusOr<struct stat> Attributes(int fd) {
  struct stat attributes{};
  if (fstat(fd, &attributes) != 0) return ErrnoStatus(errno, "stat the log");
  return attributes;
}

class FileLog final : public ContainerLog {
 public:
  explicit FileLog(LogDirectory directory) : directory_(std::move(directory)) {}

  Status Start(const LogCheckpoint& checkpoint) {
    positions_[0].stored = checkpoint.stdout_offset;
    positions_[1].stored = checkpoint.stderr_offset;
    HUSK_RETURN_IF_ERROR(OpenCurrent());
    if (checkpoint.inode == 0) return CutTornRecord(0);
    if (device_ == checkpoint.device && inode_ == checkpoint.inode)
      return ReadBack(file_.get(), checkpoint.size, size_);
    // The kubelet renamed it. What it holds beyond the checkpoint comes first, then what the new one holds already.
    auto renamed = directory_.FindFile(checkpoint.device, checkpoint.inode);
    if (renamed.ok()) {
      std::uint64_t size = 0;
      HUSK_RETURN_IF_ERROR(ReadBack(renamed->get(), checkpoint.size, size));
    } else if (!absl::IsNotFound(renamed.status())) {
      return renamed.status();
    }
    return ReadBack(file_.get(), 0, size_);
  }

  Status Append(LogStream stream, std::uint64_t offset, std::string_view data, bool end, std::int64_t now) override {
    Position& position = positions_[Index(stream)];
    HUSK_ASSIGN_OR_RETURN(const std::string_view fresh, NewBytes(position, offset, data));
    // Most chunks begin at a line's start: no copy then.
    std::string joined;
    std::string_view text = fresh;
    if (!position.unfinished.empty()) {
      joined = absl::StrCat(position.unfinished, absl::string_view(fresh.data(), fresh.size()));
      text = joined;
    }
    HUSK_ASSIGN_OR_RETURN(const std::size_t taken, WriteRecords(RecordWriter(stream, now), text, end));
    position.stored += taken;
    position.unfinished = std::string(text.substr(taken));
    return absl::OkStatus();
  }

  [[nodiscard]] std::uint64_t next_offset(LogStream stream) const override { return positions_[Index(stream)].next(); }
  [[nodiscard]] std::uint64_t stored_offset(LogStream stream) const override {
    return positions_[Index(stream)].stored;
  }

  Status Reopen() override { return OpenCurrent(); }

  [[nodiscard]] LogCheckpoint checkpoint() const override {
    return {.device = device_,
            .inode = inode_,
            .size = size_,
            .stdout_offset = positions_[0].stored,
            .stderr_offset = positions_[1].stored};
  }

 private:
  Status OpenCurrent() {
    HUSK_ASSIGN_OR_RETURN(auto file, directory_.OpenFile());
    HUSK_ASSIGN_OR_RETURN(const auto attributes, Attributes(file.get()));
    file_ = std::move(file);
    device_ = attributes.st_dev;
    inode_ = attributes.st_ino;
    size_ = static_cast<std::uint64_t>(attributes.st_size);
    return absl::OkStatus();
  }

  // All or nothing: what a failed write left is cut off again, so that records and offsets agree. The bytes of `text`
  // that are in the log.
  StatusOr<std::size_t> WriteRecords(const RecordWriter& writer, std::string_view text, bool end) {
    const std::uint64_t before = size_;
    std::size_t taken = 0;
    for (;;) {
      records_.clear();
      const std::size_t cut = CutRecords(records_, writer, text.substr(taken), end);
      if (cut == 0) return taken;
      if (const Status written = Write(records_); !written.ok()) {
        if (ftruncate(file_.get(), static_cast<off_t>(before)) == 0) size_ = before;
        return written;
      }
      taken += cut;
    }
  }

  Status Write(std::string_view records) {
    while (!records.empty()) {
      const ssize_t count = write(file_.get(), records.data(), records.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return ErrnoStatus(errno, "write the log");
      size_ += static_cast<std::uint64_t>(count);
      records.remove_prefix(static_cast<std::size_t>(count));
    }
    return absl::OkStatus();
  }

  // Counts the whole records of `fd` from `from` on into the positions, cuts a torn one off; `size`: what remains.
  Status ReadBack(int fd, std::uint64_t from, std::uint64_t& size) {
    std::string buffer;
    std::uint64_t whole_until = from;
    std::array<char, 65536> chunk;  // NOLINT(cppcoreguidelines-pro-type-member-init): pread fills it
    for (;;) {
      const ssize_t count = pread(fd, chunk.data(), chunk.size(), static_cast<off_t>(whole_until + buffer.size()));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return ErrnoStatus(errno, "read the log back");
      if (count == 0) break;
      buffer.append(chunk.data(), static_cast<std::size_t>(count));
      const std::size_t counted = CountRecords(buffer);
      whole_until += counted;
      buffer.erase(0, counted);
    }
    size = whole_until;
    if (!buffer.empty() && ftruncate(fd, static_cast<off_t>(whole_until)) != 0) {
      return ErrnoStatus(errno, "cut a torn record off the log");
    }
    return absl::OkStatus();
  }

  // The bytes of `text` that are whole lines. A line that is no record is somebody else's, and stands for no bytes.
  std::size_t CountRecords(std::string_view text) {
    std::size_t done = 0;
    for (;;) {
      const auto newline = text.find('\n', done);
      if (newline == std::string_view::npos) return done;
      if (const auto record = ParseRecord(text.substr(done, newline - done))) {
        positions_[Index(record->stream)].stored += record->stream_bytes;
      }
      done = newline + 1;
    }
  }

  // A file that we did not write, or wrote before our first checkpoint: begin on a line of our own.
  Status CutTornRecord(std::uint64_t from) {
    const auto stored = positions_;
    HUSK_RETURN_IF_ERROR(ReadBack(file_.get(), from, size_));
    positions_ = stored;
    return absl::OkStatus();
  }

  const LogDirectory directory_;
  UniqueFd file_;
  std::uint64_t device_ = 0;
  std::uint64_t inode_ = 0;
  std::uint64_t size_ = 0;
  std::array<Position, 2> positions_;
  std::string records_;  // kept to spare an allocation per chunk
};

class DiscardingLog final : public ContainerLog {
 public:
  explicit DiscardingLog(const LogCheckpoint& checkpoint)
      : offsets_{checkpoint.stdout_offset, checkpoint.stderr_offset} {}

  Status Append(LogStream stream, std::uint64_t offset, std::string_view data, bool /*end*/,
                std::int64_t /*now*/) override {
    std::uint64_t& position = offsets_[Index(stream)];
    HUSK_ASSIGN_OR_RETURN(const auto fresh, NewBytes({.stored = position}, offset, data));
    position += fresh.size();
    return absl::OkStatus();
  }
  [[nodiscard]] std::uint64_t next_offset(LogStream stream) const override { return offsets_[Index(stream)]; }
  [[nodiscard]] std::uint64_t stored_offset(LogStream stream) const override { return offsets_[Index(stream)]; }
  Status Reopen() override { return absl::OkStatus(); }
  [[nodiscard]] LogCheckpoint checkpoint() const override {
    return {.stdout_offset = offsets_[0], .stderr_offset = offsets_[1]};
  }

 private:
  std::array<std::uint64_t, 2> offsets_;
};

}  // namespace

StatusOr<std::unique_ptr<ContainerLog>> OpenContainerLog(const std::string& log_directory, const std::string& log_path,
                                                         const LogCheckpoint& checkpoint) {
  HUSK_ASSIGN_OR_RETURN(auto directory, LogDirectory::Open(log_directory, log_path));
  auto log = std::make_unique<FileLog>(std::move(directory));
  HUSK_RETURN_IF_ERROR_DOING(log->Start(checkpoint), absl::StrCat("log ", log_directory, "/", log_path));
  return std::unique_ptr<ContainerLog>(std::move(log));
}

std::unique_ptr<ContainerLog> NewDiscardingLog(const LogCheckpoint& checkpoint) {
  return std::make_unique<DiscardingLog>(checkpoint);
}

}  // namespace husk::sandbox
