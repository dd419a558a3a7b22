#include "cri/streaming/stream_session.h"

#include <algorithm>
#include <utility>

#include "sandbox/waiting.h"

namespace husk::cri {
namespace {

// Handed over at a time; also the largest piece of output, so that the bound of what is unsent is not far exceeded.
constexpr std::size_t kPiece = std::size_t{256} << 10;

}  // namespace

void StreamSession::TakeInput(std::string bytes) {
  const MutexLock lock(mutex_);
  if (input_ignored_ || input_ended_) return;
  if (input_.empty()) {
    input_ = std::move(bytes);
  } else {
    input_.append(bytes);
  }
  changed_.NotifyAll();
}

void StreamSession::EndInput() {
  const MutexLock lock(mutex_);
  input_ended_ = true;
  changed_.NotifyAll();
}

void StreamSession::TakeSize(sandbox::TerminalSize size) {
  const MutexLock lock(mutex_);
  size_ = size;
  changed_.NotifyAll();
}

bool StreamSession::input_full() {
  const MutexLock lock(mutex_);
  return input_.size() >= kInputLimit;
}

void StreamSession::Sent(std::size_t bytes) {
  const MutexLock lock(mutex_);
  unsent_ -= std::min(bytes, unsent_);
  changed_.NotifyAll();
}

StatusOr<std::string> StreamSession::ReadInput(const Context& context) {
  std::string bytes;
  bool read_on = false;
  HUSK_RETURN_IF_ERROR(sandbox::WaitFor(context, mutex_, changed_, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (input_.empty()) return input_ended_;
    const bool was_full = input_.size() >= kInputLimit;
    if (input_.size() <= kPiece) {
      bytes = std::exchange(input_, std::string());
    } else {
      bytes = input_.substr(0, kPiece);
      input_.erase(0, kPiece);
    }
    read_on = was_full && input_.size() < kInputLimit;
    return true;
  }));
  if (read_on) hooks_.read_on();
  return bytes;
}

void StreamSession::IgnoreInput() {
  {
    const MutexLock lock(mutex_);
    input_ignored_ = true;
    input_.clear();
  }
  hooks_.read_on();
}

Status StreamSession::Write(const Context& context, sandbox::OutputKind kind, std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kPiece);
    HUSK_RETURN_IF_ERROR(sandbox::WaitFor(context, mutex_, changed_, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (unsent_ >= kOutputLimit) return false;
      unsent_ += piece.size();
      return true;
    }));
    hooks_.send(kind, std::string(piece));
    bytes.remove_prefix(piece.size());
  }
  return absl::OkStatus();
}

StatusOr<sandbox::TerminalSize> StreamSession::NextSize(const Context& context) {
  std::optional<sandbox::TerminalSize> size;
  HUSK_RETURN_IF_ERROR(sandbox::WaitFor(context, mutex_, changed_, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    size = std::exchange(size_, std::nullopt);
    return size.has_value();
  }));
  return *size;
}

}  // namespace husk::cri
