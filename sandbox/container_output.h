// What one container has written, on its way from the guest into its log.
#ifndef HUSK_SANDBOX_CONTAINER_OUTPUT_H_
#define HUSK_SANDBOX_CONTAINER_OUTPUT_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agent/client/agent_client.h"
#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "sandbox/log/container_log.h"
#include "sandbox/output_tap.h"

namespace husk::sandbox {

// Thread safe: the pod's monitor feeds it, ReopenContainerLog comes from anywhere. Its lock is held while the log is
// written, so take no other lock inside but a tap's.
class ContainerOutput {
 public:
  // With a tty there is only stdout.
  ContainerOutput(std::string container_id, std::unique_ptr<ContainerLog> log, bool tty);

  // Adds a cursor for each stream that is open and whose log could be written lately. True if it added one.
  bool AddCursors(agent::v1::PollRequest& request);
  // The chunk's bytes into the log; true if it brought the stream forward. Chunks that do not fit (a gap, a stream that
  // is not open) are dropped. When the log cannot be written the stream pauses for a moment, and its bytes stay in the
  // guest.
  bool Take(const agent::v1::StreamChunk& chunk);
  // Whether both streams are over.
  [[nodiscard]] bool ended();
  // Nothing more is to come: what is left of an unfinished line goes into the log.
  void Finish();

  // From now on `tap` gets a copy of what goes into the log, and its end. At once its end, if there is nothing to come.
  void AddTap(std::shared_ptr<OutputTap> tap);
  void RemoveTap(const std::shared_ptr<OutputTap>& tap);

  Status Reopen();
  LogCheckpoint checkpoint();

 private:
  struct Stream {
    LogStream stream;
    agent::v1::StreamKind kind;
    bool ended = false;
    Context::Clock::time_point retry_at;  // not before
  };
  bool Append(Stream& stream, std::uint64_t offset, const std::string& data, bool end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndTapsIfOver() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string container_id_;
  Mutex mutex_;
  const std::unique_ptr<ContainerLog> log_ ABSL_PT_GUARDED_BY(mutex_);
  std::array<Stream, 2> streams_ ABSL_GUARDED_BY(mutex_);
  bool failing_ ABSL_GUARDED_BY(mutex_) = false;  // the last write failed: said once
  std::vector<std::shared_ptr<OutputTap>> taps_ ABSL_GUARDED_BY(mutex_);
};

// A tap at a container's output as long as it lives. Both must outlive it.
class TapRegistration {
 public:
  TapRegistration(ContainerOutput& output, std::shared_ptr<OutputTap> tap) : output_(output), tap_(std::move(tap)) {
    output_.AddTap(tap_);
  }
  ~TapRegistration() { output_.RemoveTap(tap_); }
  TapRegistration(const TapRegistration&) = delete;
  TapRegistration& operator=(const TapRegistration&) = delete;

 private:
  ContainerOutput& output_;
  const std::shared_ptr<OutputTap> tap_;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_CONTAINER_OUTPUT_H_
