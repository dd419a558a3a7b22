// A QMP connection to one QEMU.
#ifndef HUSK_HYPERVISOR_QEMU_QMP_CLIENT_H_
#define HUSK_HYPERVISOR_QEMU_QMP_CLIENT_H_

#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "hypervisor/qemu/io_thread.h"
#include "hypervisor/qemu/qmp_codec.h"

namespace husk::hypervisor {

// Thread safe. Commands are sent one at a time, in the order of their calls: QEMU would mix up the descriptors of
// commands that overlap. A connection that breaks, or over which something other than QMP comes, stays broken: calls
// fail with UNAVAILABLE. Must not outlive the IoThread.
class QmpClient : public std::enable_shared_from_this<QmpClient> {
 public:
  // Called on the I/O thread for each event; must not block.
  using EventHandler = std::function<void(const QmpEvent&)>;

  // Waits for QEMU's greeting and negotiates. `socket`: connected.
  static StatusOr<std::shared_ptr<QmpClient>> Connect(const Context& context, IoThread& io_thread, UniqueFd socket,
                                                      EventHandler on_event);
  ~QmpClient() = default;

  // Runs a command to its reply. When the context ends first, a command that was sent may still take effect; its reply
  // is dropped. `descriptor` goes along as SCM_RIGHTS. Errors of QEMU: NOT_FOUND for DeviceNotFound, else INTERNAL,
  // with the command's name before QEMU's own words.
  StatusOr<nlohmann::json> Execute(const Context& context, std::string_view command,
                                   const nlohmann::json& arguments = nullptr, UniqueFd descriptor = UniqueFd());

  // The same without waiting; nobody learns of its reply. May be called on the I/O thread too.
  void Post(std::string_view command);

  // Says that an event will be waited for; to be made before the command that causes it.
  class Expectation;
  std::unique_ptr<Expectation> Expect(std::function<bool(const QmpEvent&)> matches);

  // OK while the connection works.
  [[nodiscard]] Status status() const;
  // Breaks the connection, so that another client can have QEMU's attention. Does not wait.
  void Close();

 private:
  struct Command {
    std::uint64_t id = 0;
    std::string name;
    std::string line;
    UniqueFd descriptor;
    bool abandoned = false;
    std::optional<StatusOr<nlohmann::json>> result;
  };
  struct Expected {
    std::function<bool(const QmpEvent&)> matches;
    bool seen = false;
  };

  QmpClient(IoThread& io_thread, UniqueFd socket, EventHandler on_event);
  Status AwaitGreeting(const Context& context);
  void Enqueue(std::shared_ptr<Command> command, const nlohmann::json& arguments) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // On the I/O thread only.
  void WaitReadable();
  void Read();
  void Handle(QmpMessage message);
  void HandleReply(QmpReply reply);
  void Pump();
  void Send();
  void Break(const Status& status);

  IoThread& io_thread_;
  const EventHandler on_event_;
  // Of the I/O thread alone, so without a lock.
  boost::asio::posix::stream_descriptor socket_;
  QmpDecoder decoder_;
  std::string unsent_;
  UniqueFd unsent_descriptor_;
  bool busy_ = false;  // the front of the queue has been sent, or is being sent

  mutable Mutex mutex_;
  ConditionVariable changed_;
  bool greeted_ ABSL_GUARDED_BY(mutex_) = false;
  Status broken_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::deque<std::shared_ptr<Command>> queue_ ABSL_GUARDED_BY(mutex_);
  std::list<Expected> expected_ ABSL_GUARDED_BY(mutex_);
};

class QmpClient::Expectation {
 public:
  Expectation(std::shared_ptr<QmpClient> client, std::list<Expected>::iterator expected)
      : client_(std::move(client)), expected_(expected) {}
  Expectation(const Expectation&) = delete;
  Expectation& operator=(const Expectation&) = delete;
  ~Expectation();
  // OK once the event has come; UNAVAILABLE if the connection broke before.
  Status Wait(const Context& context);

 private:
  const std::shared_ptr<QmpClient> client_;
  const std::list<Expected>::iterator expected_;
};

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_QMP_CLIENT_H_
