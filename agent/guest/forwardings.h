// The connections to the guest's ports that huskd forwards for its clients: the part of agent.proto about connections.
#ifndef HUSK_AGENT_GUEST_FORWARDINGS_H_
#define HUSK_AGENT_GUEST_FORWARDINGS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "agent/common/status.h"
#include "agent/guest/event_loop.h"
#include "agent/guest/forwarded_connection.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// Not thread safe. Nothing blocks.
class Forwardings {
 public:
  using Polled = std::function<void(StatusOr<v1::PollForwardingResponse>)>;

  static constexpr std::size_t kMaximumForwardings = 1024;
  static constexpr std::size_t kMaximumConnections = 16'384;  // of all of them

  explicit Forwardings(EventLoop& loop) : loop_(loop) {}
  Forwardings(const Forwardings&) = delete;
  Forwardings& operator=(const Forwardings&) = delete;
  ~Forwardings() { Forget(); }

  Status Open(const std::string& id);
  void Close(const std::string& id);
  StatusOr<v1::SendForwardingResponse> Send(const v1::SendForwardingRequest& request);
  void Poll(const v1::PollForwardingRequest& request, Polled done);
  // Polls that wait are looked at.
  void BeforeSleep();
  // The connection to huskd is gone, and with it who waited.
  void Forget();

  [[nodiscard]] std::size_t connections() const { return count_; }

 private:
  struct Parked {
    std::size_t maximum_bytes = 0;
    Polled done;
    EventLoop::TimerId timer;
  };
  struct Forwarding {
    std::uint64_t last = 0;  // the highest connection so far
    std::map<std::uint64_t, std::unique_ptr<ForwardedConnection>> connections;
    std::set<std::uint64_t> hot;  // those that may have news
    std::uint64_t told_last = 0;  // where the last answer ended: the next one goes on behind it
    std::optional<Parked> parked;
  };

  void Dial(Forwarding& forwarding, const v1::Dial& dial);
  static v1::PollForwardingResponse Collect(Forwarding& forwarding, std::size_t maximum_bytes);
  // Answers the poll that waits, if one does.
  void Answer(Forwarding& forwarding, StatusOr<v1::PollForwardingResponse> response);

  EventLoop& loop_;
  std::size_t count_ = 0;
  bool changed_ = false;
  std::map<std::string, std::unique_ptr<Forwarding>> forwardings_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_FORWARDINGS_H_
