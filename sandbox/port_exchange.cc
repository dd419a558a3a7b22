#include "sandbox/port_exchange.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "sandbox/waiting.h"

namespace husk::sandbox {

// ---- the client's side ----------------------------------------------------------------------------------------------

void PortExchange::Open(std::uint64_t connection, std::uint16_t port) {
  const MutexLock lock(mutex_);
  Connection& made = connections_[connection];
  made.port = port;
  Queue(connection, made);
}

void PortExchange::Input(std::uint64_t connection, std::string_view bytes) {
  const MutexLock lock(mutex_);
  const auto found = connections_.find(connection);
  if (found == connections_.end() || found->second.input_ended) return;
  found->second.input.append(bytes);
  input_bytes_ += bytes.size();
  Queue(connection, found->second);
}

void PortExchange::EndInput(std::uint64_t connection) {
  const MutexLock lock(mutex_);
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return;
  found->second.input_ended = true;
  Queue(connection, found->second);
}

void PortExchange::Close(std::uint64_t connection) {
  {
    const MutexLock lock(mutex_);
    const auto found = connections_.find(connection);
    if (found == connections_.end()) return;
    Forget(found);
  }
  hooks_.read_on();
}

void PortExchange::NoMore() {
  const MutexLock lock(mutex_);
  no_more_ = true;
  changed_.NotifyAll();
}

bool PortExchange::input_full() {
  const MutexLock lock(mutex_);
  return input_bytes_ >= kInputLimit;
}

void PortExchange::Sent(std::size_t bytes) {
  const MutexLock lock(mutex_);
  unsent_ -= std::min(bytes, unsent_);
  changed_.NotifyAll();
}

// ---- the carrier's side: to the guest -------------------------------------------------------------------------------

void PortExchange::Queue(std::uint64_t number, Connection& connection) {
  const bool something = !connection.opened || (connection.wants_to_send() && !connection.waiting);
  if (connection.queued || !something) return;
  connection.queued = true;
  ready_.push_back(number);
  changed_.NotifyAll();
}

StatusOr<PortExchange::Batch> PortExchange::Next(const Context& context) {
  Batch batch;
  HUSK_RETURN_IF_ERROR(WaitFor(context, mutex_, changed_, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    batch = Collect();
    return !batch.empty() || (no_more_ && connections_.empty());
  }));
  return batch;
}

PortExchange::Batch PortExchange::Collect() {
  Batch batch;
  batch.closed = std::exchange(closed_, {});
  std::size_t room = kLargestBatch;
  while (!ready_.empty() && room > 0) {
    const std::uint64_t number = ready_.front();
    ready_.pop_front();
    const auto found = connections_.find(number);
    if (found == connections_.end()) continue;
    Connection& connection = found->second;
    connection.queued = false;
    if (!connection.opened) {
      connection.opened = true;
      batch.openings.push_back({.connection = number, .port = connection.port});
    } else if (connection.wants_to_send() && !connection.waiting) {
      batch.pieces.push_back(PieceOf(number, connection, room));
      room -= batch.pieces.back().bytes.size();
    }
  }
  return batch;
}

PortExchange::Piece PortExchange::PieceOf(std::uint64_t number, Connection& connection, std::size_t room) {
  connection.writable = false;
  const std::size_t size = std::min({connection.left(), room, kLargestInput});
  return {.connection = number,
          .offset = connection.offset,
          .bytes = connection.input.substr(connection.passed, size),
          .end = connection.input_ended && size == connection.left()};
}

void PortExchange::Taken(const Piece& piece, std::uint64_t offset) {
  bool over = false;
  {
    const MutexLock lock(mutex_);
    const auto found = connections_.find(piece.connection);
    if (found == connections_.end()) return;
    Connection& connection = found->second;
    const std::uint64_t end = piece.offset + piece.bytes.size();
    const std::size_t taken =
        std::clamp(offset, connection.offset, std::max(end, connection.offset)) - connection.offset;
    connection.offset += taken;
    connection.passed += taken;
    input_bytes_ -= taken;
    if (connection.left() == 0) {
      connection.input = std::string();
      connection.passed = 0;
    } else if (connection.passed > connection.input.size() / 2) {
      connection.input.erase(0, std::exchange(connection.passed, 0));
    }
    const bool all = connection.offset >= end;
    connection.end_taken = all && piece.end;
    connection.waiting = !all && !connection.writable;
    over = ForgetIfOver(found);
    if (!over) Queue(piece.connection, connection);
  }
  if (over) hooks_.over(piece.connection, absl::OkStatus());
  hooks_.read_on();
}

void PortExchange::Writable(std::uint64_t connection) {
  const MutexLock lock(mutex_);
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return;
  found->second.writable = true;
  found->second.waiting = false;
  Queue(connection, found->second);
}

// ---- the carrier's side: from the guest -----------------------------------------------------------------------------

Status PortExchange::AwaitRoom(const Context& context) {
  return WaitFor(context, mutex_, changed_,
                 [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return unsent_ < kOutputLimit; });
}

StatusOr<std::uint64_t> PortExchange::Output(std::uint64_t connection, std::uint64_t offset, std::string_view bytes,
                                             bool end) {
  std::string_view fresh;
  std::uint64_t next = 0;
  bool ended = false;
  {
    const MutexLock lock(mutex_);
    const auto found = connections_.find(connection);
    if (found == connections_.end()) return absl::NotFoundError(absl::StrCat("connection ", connection, " is over"));
    Connection& known = found->second;
    if (offset > known.received) {
      return absl::DataLossError(absl::StrCat("the guest leaves out bytes ", known.received, " to ", offset));
    }
    const std::uint64_t repeated = std::min<std::uint64_t>(known.received - offset, bytes.size());
    if (!known.output_ended) fresh = bytes.substr(repeated);
    known.received += fresh.size();
    unsent_ += fresh.size();
    next = known.received;
    ended = end && !known.output_ended;
  }
  if (!fresh.empty()) hooks_.output(connection, std::string(fresh));
  if (!ended) return next;
  hooks_.output_ended(connection);
  bool over = false;
  {
    const MutexLock lock(mutex_);
    const auto found = connections_.find(connection);
    if (found == connections_.end()) return next;
    // Only now: from here on the other thread may say that all is over.
    found->second.output_ended = true;
    over = ForgetIfOver(found);
  }
  if (over) hooks_.over(connection, absl::OkStatus());
  return next;
}

bool PortExchange::IsNews(std::uint64_t connection, std::uint64_t version, std::uint64_t end) {
  const MutexLock lock(mutex_);
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return false;
  const bool news = version > found->second.version || end > found->second.received;
  found->second.version = std::max(found->second.version, version);
  return news;
}

void PortExchange::Failed(std::uint64_t connection, const Status& why) {
  bool after_end = false;
  {
    const MutexLock lock(mutex_);
    const auto found = connections_.find(connection);
    if (found == connections_.end()) return;
    // A program that has closed its socket refuses what still comes: the client has been told the end.
    after_end = found->second.output_ended;
    Forget(found);
  }
  hooks_.over(connection, after_end ? absl::OkStatus() : why);
  hooks_.read_on();
}

void PortExchange::Forget(Connections::iterator found) {
  input_bytes_ -= found->second.left();
  if (found->second.opened) closed_.push_back(found->first);
  connections_.erase(found);
  changed_.NotifyAll();
}

bool PortExchange::ForgetIfOver(Connections::iterator found) {
  if (!found->second.output_ended || !found->second.end_taken) return false;
  Forget(found);
  return true;
}

}  // namespace husk::sandbox
