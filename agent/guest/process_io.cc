#include "agent/guest/process_io.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"

namespace husk::agent {
namespace {

// A pipe as large as the buffer behind it: fewer turns of writer and reader. Its pages are made when they are needed.
constexpr int kPipeSize = int{StreamBuffer::kCapacity};
// What huskd sends at a time fits in, so that the next piece is on its way while the process reads this one.
constexpr int kInputPipeSize = 256 << 10;
// A stream that is empty for so long needs no memory.
constexpr auto kIdle = std::chrono::seconds(1);
constexpr char kEndOfTransmission = 4;  // what a terminal takes for end of file

Status SetNonBlocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return ErrnoStatus(errno, "fcntl");
  return absl::OkStatus();
}

StatusOr<std::pair<UniqueFd, UniqueFd>> MakePipe() {
  std::array<int, 2> fds{};
  if (pipe2(fds.data(), O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  return std::pair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

StatusOr<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy.valid()) return ErrnoStatus(errno, "dup");
  return copy;
}

}  // namespace

Status OutputStream::Open(UniqueFd source) {
  if (!source.valid()) {
    ended_ = true;
    return absl::OkStatus();
  }
  HUSK_RETURN_IF_ERROR(SetNonBlocking(source.get()));
  source_ = std::move(source);
  return loop_.Watch(source_.get(), EPOLLIN, [this](std::uint32_t) { Readable(); });
}

void OutputStream::Readable() {
  const std::span<char> space = buffer_.Space();
  if (space.empty()) {
    // A hang-up is told whatever is asked for, so the descriptor has to leave the set.
    loop_.Unwatch(source_.get());
    paused_ = true;
    return;
  }
  const ssize_t count = read(source_.get(), space.data(), space.size());
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (count <= 0) {
    // A terminal's end is EIO.
    Close();
  } else {
    buffer_.Commit(static_cast<std::size_t>(count));
  }
  changed_();
}

void OutputStream::Acknowledge(std::uint64_t offset) {
  buffer_.Acknowledge(offset);
  ReleaseLater();
  if (!paused_ || buffer_.room() == 0) return;
  paused_ = false;
  if (!loop_.Watch(source_.get(), EPOLLIN, [this](std::uint32_t) { Readable(); }).ok()) Close();
}

void OutputStream::ReleaseLater() {
  if (release_ || buffer_.allocated() == 0 || buffer_.end() > buffer_.acknowledged()) return;
  release_ = loop_.After(kIdle, [this] {
    release_.reset();
    buffer_.Release();
  });
}

void OutputStream::Close() {
  if (source_.valid() && !paused_) loop_.Unwatch(source_.get());
  source_.Reset();
  paused_ = false;
  ended_ = true;
}

Status InputStream::Open(UniqueFd sink, bool terminal) {
  HUSK_RETURN_IF_ERROR(SetNonBlocking(sink.get()));
  sink_ = std::move(sink);
  opened_ = true;
  terminal_ = terminal;
  return absl::OkStatus();
}

void InputStream::Write(std::uint64_t offset, std::string data, bool close, Taken taken) {
  if (!opened_) return taken(absl::FailedPreconditionError("the process has no standard input, or does not run yet"));
  if (offset > offset_) {
    return taken(absl::OutOfRangeError(absl::StrCat("offset ", offset, " leaves a gap after ", offset_)));
  }
  if (waiting_.size() >= kMaximumWaiting) {
    return taken(absl::ResourceExhaustedError("too many writes wait for the process to read"));
  }
  Request request{.offset = offset, .data = std::move(data), .close = close, .taken = std::move(taken)};
  if (waiting_.empty() && Advance(request)) return request.taken(offset_);
  waiting_.push_back(std::move(request));
  if (!watching_) watching_ = loop_.Watch(sink_.get(), EPOLLOUT, [this](std::uint32_t) { Writable(); }).ok();
}

bool InputStream::Advance(const Request& request) {
  const std::uint64_t end = request.offset + request.data.size();
  while (sink_.valid() && offset_ < end) {
    const std::string_view rest = std::string_view(request.data).substr(offset_ - request.offset);
    const ssize_t count = write(sink_.get(), rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return false;
    if (count < 0) {
      // Nobody reads any more.
      StopWriting();
      break;
    }
    offset_ += static_cast<std::uint64_t>(count);
  }
  offset_ = std::max(offset_, end);
  if (request.close && !closed_) {
    closed_ = true;
    if (terminal_ && sink_.valid()) {
      [[maybe_unused]] const ssize_t written = write(sink_.get(), &kEndOfTransmission, 1);
    }
    StopWriting();
  }
  return true;
}

void InputStream::Writable() {
  while (!waiting_.empty() && Advance(waiting_.front())) {
    const Request done = std::move(waiting_.front());
    waiting_.pop_front();
    done.taken(offset_);
  }
  if (waiting_.empty() && watching_) {
    loop_.Unwatch(sink_.get());
    watching_ = false;
  }
}

void InputStream::StopWriting() {
  if (watching_) loop_.Unwatch(sink_.get());
  watching_ = false;
  sink_.Reset();
}

void InputStream::Close() {
  StopWriting();
  auto waiting = std::exchange(waiting_, {});
  for (const auto& request : waiting) {
    offset_ = std::max(offset_, request.offset + request.data.size());
    request.taken(offset_);
  }
}

StatusOr<ProcessIo::ChildEnds> ProcessIo::OpenPipes(bool with_stdin) {
  ChildEnds ends;
  HUSK_ASSIGN_OR_RETURN(auto out, MakePipe());
  HUSK_ASSIGN_OR_RETURN(auto err, MakePipe());
  // Without the right to it they stay as they are.
  for (const UniqueFd* const end : {&out.first, &err.first}) fcntl(end->get(), F_SETPIPE_SZ, kPipeSize);
  if (with_stdin) {
    HUSK_ASSIGN_OR_RETURN(auto in, MakePipe());
    fcntl(in.second.get(), F_SETPIPE_SZ, kInputPipeSize);
    ends.standard_input = std::move(in.first);
    HUSK_RETURN_IF_ERROR(stdin_.Open(std::move(in.second), /*terminal=*/false));
  }
  HUSK_RETURN_IF_ERROR(stdout_.Open(std::move(out.first)));
  HUSK_RETURN_IF_ERROR(stderr_.Open(std::move(err.first)));
  ends.standard_output = std::move(out.second);
  ends.standard_error = std::move(err.second);
  return ends;
}

Status ProcessIo::OpenTerminal(UniqueFd master, bool with_stdin) {
  // A descriptor stands in an epoll set once, so reading and writing use two.
  HUSK_ASSIGN_OR_RETURN(auto reader, Duplicate(master.get()));
  if (with_stdin) {
    HUSK_ASSIGN_OR_RETURN(auto writer, Duplicate(master.get()));
    HUSK_RETURN_IF_ERROR(stdin_.Open(std::move(writer), /*terminal=*/true));
  }
  HUSK_RETURN_IF_ERROR(stdout_.Open(std::move(reader)));
  HUSK_RETURN_IF_ERROR(stderr_.Open(UniqueFd()));
  terminal_ = std::move(master);
  return absl::OkStatus();
}

void ProcessIo::Close() {
  stdin_.Close();
  stdout_.Close();
  stderr_.Close();
  terminal_.Reset();
}

Status ProcessIo::Resize(std::uint32_t columns, std::uint32_t rows) {
  if (!terminal_.valid()) return absl::FailedPreconditionError("the process has no terminal");
  if (columns > 0xffff || rows > 0xffff) return absl::InvalidArgumentError("the terminal's size is too large");
  winsize size{};
  size.ws_col = static_cast<unsigned short>(columns);
  size.ws_row = static_cast<unsigned short>(rows);
  if (ioctl(terminal_.get(), TIOCSWINSZ, &size) != 0) return ErrnoStatus(errno, "TIOCSWINSZ");
  return absl::OkStatus();
}

}  // namespace husk::agent
