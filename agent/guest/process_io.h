// Standard input and output of one process: pipes or a terminal, and what waits in between.
#ifndef HUSK_AGENT_GUEST_PROCESS_IO_H_
#define HUSK_AGENT_GUEST_PROCESS_IO_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "agent/guest/event_loop.h"
#include "agent/guest/stream_buffer.h"

namespace husk::agent {

// One output stream. Stops reading when its buffer is full, so that the process waits.
class OutputStream {
 public:
  // `changed` is called when bytes or the end have come.
  OutputStream(EventLoop& loop, std::function<void()> changed) : loop_(loop), changed_(std::move(changed)) {}
  OutputStream(const OutputStream&) = delete;
  OutputStream& operator=(const OutputStream&) = delete;
  ~OutputStream() {
    Close();
    if (release_) loop_.Cancel(*release_);
  }

  // Reads from `source` (non-blocking) until its end. Without a source the stream is at its end.
  Status Open(UniqueFd source);
  void Acknowledge(std::uint64_t offset);
  // No more bytes will come than the buffer has.
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] const StreamBuffer& buffer() const { return buffer_; }
  void Close();

 private:
  void Readable();
  void ReleaseLater();

  EventLoop& loop_;
  const std::function<void()> changed_;
  UniqueFd source_;
  StreamBuffer buffer_;
  bool ended_ = false;
  bool paused_ = false;
  std::optional<EventLoop::TimerId> release_;
};

// The stdin stream. Holds no bytes itself: what the pipe does not take waits with the request.
class InputStream {
 public:
  // The next offset to send.
  using Taken = std::function<void(StatusOr<std::uint64_t>)>;
  // Requests that may wait for the pipe.
  static constexpr std::size_t kMaximumWaiting = 16;

  explicit InputStream(EventLoop& loop) : loop_(loop) {}
  InputStream(const InputStream&) = delete;
  InputStream& operator=(const InputStream&) = delete;
  ~InputStream() { Close(); }

  // `sink`: non-blocking. `terminal`: end of file is told by its EOF character.
  Status Open(UniqueFd sink, bool terminal);
  // See WriteStdin in agent.proto: `taken` is called when all bytes are in the pipe. Bytes for a process that reads no
  // more count as taken.
  void Write(std::uint64_t offset, std::string data, bool close, Taken taken);
  // The connection is gone, and with it who waited.
  void ForgetWaiting() { waiting_.clear(); }
  // Answers those who wait; all later bytes are dropped.
  void Close();

 private:
  struct Request {
    std::uint64_t offset;
    std::string data;
    bool close;
    Taken taken;
  };
  // Writes what the sink has room for. Whether that is all, or nobody reads any more.
  bool Advance(const Request& request);
  void Writable();
  void StopWriting();

  EventLoop& loop_;
  UniqueFd sink_;
  bool opened_ = false;
  bool terminal_ = false;
  bool closed_ = false;
  bool watching_ = false;
  std::uint64_t offset_ = 0;
  std::deque<Request> waiting_;
};

// All three, and the ends that the process gets.
class ProcessIo {
 public:
  ProcessIo(EventLoop& loop, const std::function<void()>& changed)
      : stdout_(loop, changed), stderr_(loop, changed), stdin_(loop) {}

  // The child's ends; -1 is /dev/null. They are closed by CloseChildEnds.
  struct ChildEnds {
    UniqueFd standard_input;
    UniqueFd standard_output;
    UniqueFd standard_error;
  };
  // Makes the pipes (not for a terminal).
  StatusOr<ChildEnds> OpenPipes(bool with_stdin);
  // The master's end of a terminal: output is stdout, stderr is at its end.
  Status OpenTerminal(UniqueFd master, bool with_stdin);
  // Nothing was started: all streams end.
  void Close();

  Status Resize(std::uint32_t columns, std::uint32_t rows);

  OutputStream& standard_output() { return stdout_; }
  OutputStream& standard_error() { return stderr_; }
  InputStream& standard_input() { return stdin_; }
  [[nodiscard]] const OutputStream& standard_output() const { return stdout_; }
  [[nodiscard]] const OutputStream& standard_error() const { return stderr_; }

 private:
  UniqueFd terminal_;
  OutputStream stdout_;
  OutputStream stderr_;
  InputStream stdin_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_PROCESS_IO_H_
