// One TCP connection to a port on the guest's loopback.
#ifndef HUSK_AGENT_GUEST_FORWARDED_CONNECTION_H_
#define HUSK_AGENT_GUEST_FORWARDED_CONNECTION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "agent/common/unique_fd.h"
#include "agent/guest/event_loop.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// Holds no bytes itself: output stays in the socket's queue, looked at but not taken, until huskd has acknowledged it,
// and what the socket does not take of the input huskd sends again. So thousands of them cost little more than their
// descriptors. Not thread safe.
class ForwardedConnection {
 public:
  // `changed` is called when there may be something to tell; not by the methods here.
  ForwardedConnection(EventLoop& loop, std::function<void()> changed) : loop_(loop), changed_(std::move(changed)) {}
  ForwardedConnection(const ForwardedConnection&) = delete;
  ForwardedConnection& operator=(const ForwardedConnection&) = delete;
  ~ForwardedConnection() { Close(); }

  // Once. However it goes: there will be something to tell.
  void Dial(std::uint16_t port);
  // Never is a connection: there is only that to tell.
  void Refuse(const std::string& why) { Fail(why); }
  // See ConnectionInput of agent.proto. The offset of the next byte that is wanted.
  std::uint64_t Write(std::uint64_t offset, std::string_view data, bool end);
  // See ConnectionReceipt.
  void Acknowledge(std::uint64_t version, std::uint64_t offset);
  // What there is to tell, with at most `maximum` bytes; false: nothing for now.
  bool Tell(std::size_t maximum, v1::ConnectionNews& news);

 private:
  enum class State { kConnecting, kOpen, kFailed };

  void TryNext(const std::string& trouble);
  // An errno, or 0: it is under way.
  int Connect(int family);
  void Ready(std::uint32_t events);
  void FinishConnect();
  void Fail(const std::string& why);
  // At most `maximum` bytes that have come, or the end, or an error.
  void Look(std::size_t maximum, std::string& data);
  void Close();

  EventLoop& loop_;
  const std::function<void()> changed_;
  UniqueFd socket_;
  State state_ = State::kConnecting;
  std::uint16_t port_ = 0;
  int attempts_ = 0;
  std::string trouble_;  // of the attempts
  std::string error_;
  std::uint64_t version_ = 0;
  std::uint64_t told_version_ = 0;  // that there was a receipt for
  bool readable_ = false;
  std::uint64_t read_ = 0;  // acknowledged, and taken out of the queue
  bool ended_ = false;      // the program writes no more, and all of it is acknowledged
  bool writable_ = false;
  bool broken_ = false;  // writing has failed
  bool shut_ = false;    // our end is told
  std::uint64_t written_ = 0;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_FORWARDED_CONNECTION_H_
