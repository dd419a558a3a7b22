// A client at a process's streams, in memory.
#ifndef HUSK_SANDBOX_TESTING_FAKE_CLIENT_H_
#define HUSK_SANDBOX_TESTING_FAKE_CLIENT_H_

#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "agent/common/mutex.h"
#include "sandbox/client_streams.h"
#include "sandbox/waiting.h"

namespace husk::sandbox {

// Thread safe.
class FakeClient : public ClientStreams {
 public:
  // As the client would. `Type("")` ends the input.
  void Type(const std::string& bytes) {
    const MutexLock lock(mutex_);
    input_.push_back(bytes);
    changed_.NotifyAll();
  }
  void Resize(std::uint32_t columns, std::uint32_t rows) {
    const MutexLock lock(mutex_);
    size_ = TerminalSize{.columns = columns, .rows = rows};
    changed_.NotifyAll();
  }
  void SetReading(bool reading) {
    const MutexLock lock(mutex_);
    reading_ = reading;
    changed_.NotifyAll();
  }

  [[nodiscard]] std::string output() {
    const MutexLock lock(mutex_);
    return output_;
  }
  [[nodiscard]] std::string error_output() {
    const MutexLock lock(mutex_);
    return error_output_;
  }
  [[nodiscard]] bool ignored_input() {
    const MutexLock lock(mutex_);
    return ignored_input_;
  }
  // How often something waited to be read by it.
  [[nodiscard]] int writes() {
    const MutexLock lock(mutex_);
    return writes_;
  }

  StatusOr<std::string> ReadInput(const Context& context) override {
    HUSK_RETURN_IF_ERROR(
        WaitFor(context, mutex_, changed_, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !input_.empty(); }));
    const MutexLock lock(mutex_);
    std::string bytes = std::move(input_.front());
    input_.pop_front();
    return bytes;
  }
  void IgnoreInput() override {
    const MutexLock lock(mutex_);
    ignored_input_ = true;
  }
  Status Write(const Context& context, OutputKind kind, std::string_view bytes) override {
    {
      const MutexLock lock(mutex_);
      ++writes_;
    }
    HUSK_RETURN_IF_ERROR(
        WaitFor(context, mutex_, changed_, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return reading_; }));
    const MutexLock lock(mutex_);
    (kind == OutputKind::kStandardOutput ? output_ : error_output_).append(bytes);
    return absl::OkStatus();
  }
  StatusOr<TerminalSize> NextSize(const Context& context) override {
    HUSK_RETURN_IF_ERROR(WaitFor(context, mutex_, changed_,
                                 [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return size_.has_value(); }));
    const MutexLock lock(mutex_);
    return *std::exchange(size_, std::nullopt);
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  std::deque<std::string> input_ ABSL_GUARDED_BY(mutex_);
  std::optional<TerminalSize> size_ ABSL_GUARDED_BY(mutex_);
  std::string output_ ABSL_GUARDED_BY(mutex_);
  std::string error_output_ ABSL_GUARDED_BY(mutex_);
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool ignored_input_ ABSL_GUARDED_BY(mutex_) = false;
  int writes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_TESTING_FAKE_CLIENT_H_
