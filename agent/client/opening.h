// How huskd opens a connection on the agent channel (agent.proto, "The channel"): marker and nonce out, then everything
// that comes in is thrown away up to the echo of both.
#ifndef HUSK_AGENT_CLIENT_OPENING_H_
#define HUSK_AGENT_CLIENT_OPENING_H_

#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace husk::agent {

// The opening of one connection, repeated until the guest answers. Not thread safe.
//
// Each attempt has a nonce of its own, and only the last one's echo counts: the agent starts anew at every marker, so
// what it said after an earlier one is void. But an echo of an earlier attempt shows that the guest listens, and that
// the echo of the last is on its way: then no further attempt may be made, or a guest that answers more slowly than
// attempts are repeated would never be heard.
class Opening {
 public:
  // The bytes that begin the next attempt: marker and nonce. What follows is masked with nonce().
  std::string NextAttempt();
  [[nodiscard]] const std::string& nonce() const { return nonce_; }
  [[nodiscard]] int attempts() const { return attempts_; }

  // Takes the next received bytes. Once the last attempt's echo is complete, returns the bytes after it, which are
  // ttrpc frames' first; nothing may be given to it afterwards. Keeps less than 32 bytes.
  std::optional<std::string> Receive(std::string_view bytes);
  // True if an attempt's echo has been seen.
  [[nodiscard]] bool guest_listens() const { return guest_listens_; }

 private:
  std::string nonce_;
  std::set<std::string> nonces_;
  std::string tail_;
  int attempts_ = 0;
  bool guest_listens_ = false;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_OPENING_H_
