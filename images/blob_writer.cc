#include "images/blob_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>

#include "images/layer_index.h"
#include "images/limits.h"
#include "images/text.h"

namespace husk::images {
namespace {

constexpr std::size_t kBufferSize = std::size_t{1} << 20;
constexpr std::uint64_t kWritebackChunk = std::uint64_t{16} << 20;

// Where the disk is full is of interest, and the writer has only a descriptor.
std::string PathOf(int fd) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::read_symlink(Concat("/proc/self/fd/", fd), error);
  return error ? "a layer blob" : path.string();
}

}  // namespace

BlobWriter::BlobWriter(int fd) : fd_(fd) {
  buffer_.reserve(kBufferSize + kBlockSize);
}

StatusOr<std::uint64_t> BlobWriter::BeginFile(std::uint64_t size) {
  if (size > kMaximumBlob - end_) return absl::ResourceExhaustedError("the layer's files exceed 4 TiB");
  file_start_ = end_;
  end_ += RoundUpToBlock(size);
  return file_start_;
}

Status BlobWriter::Write(std::uint64_t offset, std::string_view data) {
  if (data.empty()) return absl::OkStatus();
  const std::uint64_t position = file_start_ + offset;
  const std::uint64_t first_block = std::max(position / kBlockSize * kBlockSize, stored_end_);
  stored_end_ = RoundUpToBlock(position + data.size());
  stored_ += stored_end_ - std::min(first_block, stored_end_);
  const std::uint64_t buffer_end = buffer_start_ + buffer_.size();
  if (position - buffer_end < kBlockSize) {
    buffer_.append(position - buffer_end, '\0');
  } else {
    HUSK_RETURN_IF_ERROR(Flush());
    buffer_start_ = position;
  }
  buffer_ += data;
  return buffer_.size() < kBufferSize ? absl::OkStatus() : Flush();
}

StatusOr<std::uint64_t> BlobWriter::Finish() {
  HUSK_RETURN_IF_ERROR(Flush());
  if (ftruncate(fd_, static_cast<off_t>(end_)) != 0) {
    const int error = errno;
    return ErrnoStatus(error, Concat("set the length of ", PathOf(fd_)));
  }
  return end_;
}

Status BlobWriter::Flush() {
  std::string_view left = buffer_;
  while (!left.empty()) {
    const ssize_t written = pwrite(fd_, left.data(), left.size(), static_cast<off_t>(buffer_start_));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error = errno;
      return ErrnoStatus(error, Concat("write ", PathOf(fd_)));
    }
    left.remove_prefix(static_cast<std::size_t>(written));
    buffer_start_ += static_cast<std::uint64_t>(written);
  }
  buffer_.clear();
  // So that the fsync at the end finds little left to do. A hint: its failure does not matter.
  if (buffer_start_ - writeback_from_ >= kWritebackChunk) {
    sync_file_range(fd_, static_cast<off_t>(writeback_from_), static_cast<off_t>(buffer_start_ - writeback_from_),
                    SYNC_FILE_RANGE_WRITE);
    writeback_from_ = buffer_start_;
  }
  return absl::OkStatus();
}

}  // namespace husk::images
