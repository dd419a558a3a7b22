#include "sandbox/container_output.h"

#include <chrono>
#include <string_view>
#include <utility>

#include "sandbox/id.h"
#include "sandbox/logging.h"

namespace husk::sandbox {
namespace {
constexpr auto kRetryPause = std::chrono::milliseconds(500);
}

ContainerOutput::ContainerOutput(std::string container_id, std::unique_ptr<ContainerLog> log, bool tty)
    : container_id_(std::move(container_id)),
      log_(std::move(log)),
      streams_{Stream{.stream = LogStream::kStdout, .kind = agent::v1::STDOUT, .ended = false, .retry_at = {}},
               Stream{.stream = LogStream::kStderr, .kind = agent::v1::STDERR, .ended = tty, .retry_at = {}}} {}

bool ContainerOutput::AddCursors(agent::v1::PollRequest& request) {
  const MutexLock lock(mutex_);
  bool added = false;
  const auto now = Context::Clock::now();
  for (const Stream& stream : streams_) {
    if (stream.ended || stream.retry_at > now) continue;
    agent::v1::StreamCursor& cursor = *request.add_cursors();
    cursor.set_container_id(container_id_);
    cursor.set_kind(stream.kind);
    cursor.set_offset(log_->next_offset(stream.stream));
    cursor.set_acknowledged(log_->stored_offset(stream.stream));
    added = true;
  }
  return added;
}

bool ContainerOutput::Take(const agent::v1::StreamChunk& chunk) {
  const MutexLock lock(mutex_);
  for (Stream& stream : streams_) {
    if (stream.kind == chunk.kind() && !stream.ended) {
      return Append(stream, chunk.offset(), chunk.data(), chunk.end());
    }
  }
  return false;
}

bool ContainerOutput::Append(Stream& stream, std::uint64_t offset, const std::string& data, bool end) {
  const std::uint64_t before = log_->next_offset(stream.stream);
  const Status status = log_->Append(stream.stream, offset, data, end, NowNanoseconds());
  // What the log has taken, though it may not be stored yet.
  const std::uint64_t after = log_->next_offset(stream.stream);
  if (after > before && before >= offset && after - offset <= data.size()) {
    const OutputKind kind =
        stream.stream == LogStream::kStdout ? OutputKind::kStandardOutput : OutputKind::kStandardError;
    const std::string_view fresh = std::string_view(data).substr(before - offset, after - before);
    for (const auto& tap : taps_) tap->Put(kind, fresh);
  }
  if (!status.ok()) {
    stream.retry_at = Context::Clock::now() + kRetryPause;
    if (!failing_) spdlog::error("container={} its log: {}; trying again", container_id_, Words(status));
    failing_ = true;
    return false;
  }
  failing_ = false;
  // An end may only be believed where nothing is missing before it; Append has refused a gap.
  stream.ended = end;
  EndTapsIfOver();
  return end || after != before;
}

bool ContainerOutput::ended() {
  const MutexLock lock(mutex_);
  return streams_[0].ended && streams_[1].ended;
}

void ContainerOutput::Finish() {
  const MutexLock lock(mutex_);
  for (Stream& stream : streams_) {
    if (!stream.ended) Append(stream, log_->next_offset(stream.stream), "", true);
    stream.ended = true;
  }
  EndTapsIfOver();
}

void ContainerOutput::EndTapsIfOver() {
  if (!streams_[0].ended || !streams_[1].ended) return;
  for (const auto& tap : taps_) tap->Close();
}

void ContainerOutput::AddTap(std::shared_ptr<OutputTap> tap) {
  const MutexLock lock(mutex_);
  taps_.push_back(std::move(tap));
  EndTapsIfOver();
}

void ContainerOutput::RemoveTap(const std::shared_ptr<OutputTap>& tap) {
  const MutexLock lock(mutex_);
  std::erase(taps_, tap);
}

Status ContainerOutput::Reopen() {
  const MutexLock lock(mutex_);
  return log_->Reopen();
}

LogCheckpoint ContainerOutput::checkpoint() {
  const MutexLock lock(mutex_);
  return log_->checkpoint();
}

}  // namespace husk::sandbox
