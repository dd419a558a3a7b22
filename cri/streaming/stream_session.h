// Where the I/O thread of a connection and the threads of its command meet.
#ifndef HUSK_CRI_STREAMING_STREAM_SESSION_H_
#define HUSK_CRI_STREAMING_STREAM_SESSION_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "sandbox/client_streams.h"

namespace husk::cri {

// Both directions are bounded: a process that does not read makes the connection stop reading, a client that does not
// read makes the process wait. Thread safe; the hooks are called without locks.
class StreamSession final : public sandbox::ClientStreams {
 public:
  static constexpr std::size_t kInputLimit = std::size_t{256} << 10;
  static constexpr std::size_t kOutputLimit = std::size_t{512} << 10;

  struct Hooks {
    std::function<void(sandbox::OutputKind kind, std::string bytes)> send;
    std::function<void()> read_on;  // input_full() has become false
  };
  explicit StreamSession(Hooks hooks) : hooks_(std::move(hooks)) {}

  // ---- the connection's side: nothing waits -------------------------------------------------------------------------

  void TakeInput(std::string bytes);
  void EndInput();
  // Of several that nobody has asked for yet the last one counts.
  void TakeSize(sandbox::TerminalSize size);
  // No more should be read for now.
  [[nodiscard]] bool input_full();
  // That many bytes that were given to `send` have left.
  void Sent(std::size_t bytes);

  // ---- the command's side -------------------------------------------------------------------------------------------

  StatusOr<std::string> ReadInput(const Context& context) override;
  void IgnoreInput() override;
  Status Write(const Context& context, sandbox::OutputKind kind, std::string_view bytes) override;
  StatusOr<sandbox::TerminalSize> NextSize(const Context& context) override;

 private:
  const Hooks hooks_;
  Mutex mutex_;
  ConditionVariable changed_;
  std::string input_ ABSL_GUARDED_BY(mutex_);
  bool input_ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool input_ignored_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<sandbox::TerminalSize> size_ ABSL_GUARDED_BY(mutex_);
  std::size_t unsent_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_STREAM_SESSION_H_
