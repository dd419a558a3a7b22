#include "agent/guest/poller.h"

#include <algorithm>
#include <chrono>
#include <string_view>
#include <utility>

namespace husk::agent {
namespace {

constexpr std::size_t kDefaultBytes = std::size_t{1} << 20;
// Leaves room in a frame for the names around the bytes.
constexpr std::size_t kMaximumBytes = std::size_t{3} << 20;
constexpr int kMaximumEntries = 4096;

OutputStream* StreamOf(Process& process, v1::StreamKind kind) {
  if (kind == v1::STDOUT) return &process.io.standard_output();
  if (kind == v1::STDERR) return &process.io.standard_error();
  return nullptr;
}

void AddUnknown(const std::string& container_id, const std::string& exec_id, v1::PollResponse& response) {
  v1::ProcessRef& unknown = *response.add_unknown();
  unknown.set_container_id(container_id);
  unknown.set_exec_id(exec_id);
}

// A v1::StreamChunk. Takes what it adds off `bytes_left`.
void AddChunk(const v1::StreamCursor& cursor, const OutputStream& stream, std::size_t& bytes_left, Payload& answer) {
  const StreamBuffer& buffer = stream.buffer();
  const std::uint64_t from = std::max<std::uint64_t>(cursor.offset(), buffer.acknowledged());
  const auto data = buffer.Read(from, bytes_left);
  const std::size_t size = data[0].size() + data[1].size();
  const bool end = stream.ended() && from + size >= buffer.end();
  if (size == 0 && !end) return;
  bytes_left -= size;
  v1::StreamChunk chunk;
  chunk.set_container_id(cursor.container_id());
  chunk.set_exec_id(cursor.exec_id());
  chunk.set_kind(cursor.kind());
  chunk.set_offset(from);
  chunk.set_end(end);
  std::string head = chunk.SerializeAsString();
  if (size > 0) head += FieldHead(v1::StreamChunk::kDataFieldNumber, size);
  answer.Append(FieldHead(v1::PollResponse::kChunksFieldNumber, head.size() + size));
  answer.Append(std::move(head));
  for (const std::string_view part : data) answer.Borrow(part);
}

}  // namespace

Payload Poller::Collect(const v1::PollRequest& request) {
  Payload answer;
  v1::PollResponse response;  // all but the chunks
  std::size_t bytes_left = request.maximum_bytes() == 0 ? kDefaultBytes : request.maximum_bytes();
  bytes_left = std::min(bytes_left, kMaximumBytes);
  for (const auto& cursor : request.cursors()) {
    Process* const process = containers_.Find(cursor.container_id(), cursor.exec_id());
    if (process == nullptr) {
      AddUnknown(cursor.container_id(), cursor.exec_id(), response);
    } else if (const OutputStream* const stream = StreamOf(*process, cursor.kind())) {
      AddChunk(cursor, *stream, bytes_left, answer);
    }
  }
  for (const auto& watched : request.watch()) {
    const Process* const process = containers_.Find(watched.container_id(), watched.exec_id());
    if (process == nullptr) {
      AddUnknown(watched.container_id(), watched.exec_id(), response);
    } else if (process->exited()) {
      v1::ProcessStatus& status = *response.add_exits();
      status = process->status;
      status.set_stdout_offset(process->io.standard_output().buffer().acknowledged());
      status.set_stderr_offset(process->io.standard_error().buffer().acknowledged());
    }
  }
  if (request.has_memory() &&
      (mark_.shortages() > request.memory().shortages() || mark_.surpluses() > request.memory().surpluses())) {
    response.mutable_memory()->set_shortages(mark_.shortages());
    response.mutable_memory()->set_surpluses(mark_.surpluses());
    response.set_spare_memory_bytes(mark_.SpareBytes());
  }
  answer.Append(response.SerializeAsString());
  return answer;
}

void Poller::Poll(v1::PollRequest request, Done done) {
  if (request.cursors_size() > kMaximumEntries || request.watch_size() > kMaximumEntries) {
    return done(absl::InvalidArgumentError("too many cursors or watched processes"));
  }
  for (const auto& cursor : request.cursors()) {
    if (cursor.kind() != v1::STDOUT && cursor.kind() != v1::STDERR) {
      return done(absl::InvalidArgumentError("a cursor's kind has to be STDOUT or STDERR"));
    }
    // Once, now: while the poll is parked nothing new is acknowledged.
    Process* const process = containers_.Find(cursor.container_id(), cursor.exec_id());
    if (process != nullptr) StreamOf(*process, cursor.kind())->Acknowledge(cursor.acknowledged());
  }
  Payload news = Collect(request);
  if (news.size() > 0 || request.wait_milliseconds() == 0) return done(std::move(news));
  const auto wait = std::chrono::milliseconds(request.wait_milliseconds());
  const auto parked = parked_.insert(parked_.end(), {std::move(request), std::move(done), {}});
  parked->timer = loop_.After(wait, [this, parked] {
    const Done answer = std::move(parked->done);
    parked_.erase(parked);
    answer(Payload());
  });
}

void Poller::BeforeSleep() {
  if (!changed_) return;
  changed_ = false;
  for (auto parked = parked_.begin(); parked != parked_.end();) {
    Payload news = Collect(parked->request);
    if (news.size() == 0) {
      ++parked;
      continue;
    }
    loop_.Cancel(parked->timer);
    const Done answer = std::move(parked->done);
    parked = parked_.erase(parked);
    answer(std::move(news));
  }
}

void Poller::Forget() {
  for (const auto& parked : parked_) loop_.Cancel(parked.timer);
  parked_.clear();
}

}  // namespace husk::agent
