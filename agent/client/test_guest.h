// A small agent on a unix socket, for the tests of the real client: it speaks the protocol, and breaks it on demand.
#ifndef HUSK_AGENT_CLIENT_TEST_GUEST_H_
#define HUSK_AGENT_CLIENT_TEST_GUEST_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "agent/common/mutex.h"
#include "agent/common/ttrpc.h"
#include "agent/common/unique_fd.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

// Serves one connection at a time, as QEMU's chardev does, on a thread of its own.
class TestGuest {
 public:
  // What a handler may do. Valid during the call, and on that thread only.
  class Peer {
   public:
    explicit Peer(int fd) : fd_(fd) {}
    void Send(std::string_view bytes);
    void Answer(std::uint32_t stream, const std::string& payload);
    void Fail(std::uint32_t stream, int code, const std::string& message);
    void Close() { closed_ = true; }
    [[nodiscard]] bool closed() const { return closed_; }

   private:
    int fd_;
    bool closed_ = false;
  };
  using Handler = std::function<void(Peer&, std::uint32_t stream, const v1::RpcRequest& request)>;

  // Set before Start.
  std::string stale_bytes;        // written before anything else, on each connection
  int ignored_openings = 0;       // as if the port were not open yet; counted over all connections
  int late_openings = 0;          // so many are echoed only when one more has come
  bool answers_hello = true;      // the opening's own Hello; else the handler gets it
  Handler handler = AnswerEmpty;  // for every other request

  explicit TestGuest(std::string path) : path_(std::move(path)) {}
  TestGuest(const TestGuest&) = delete;
  TestGuest& operator=(const TestGuest&) = delete;
  ~TestGuest() { Stop(/*remove_socket=*/true); }

  void Start();
  void Stop(bool remove_socket);
  [[nodiscard]] int connections() const { return connections_; }
  [[nodiscard]] int openings() const { return openings_; }
  [[nodiscard]] const std::string& path() const { return path_; }

  static void AnswerEmpty(Peer& peer, std::uint32_t stream, const v1::RpcRequest& request);
  static std::string HelloPayload();

 private:
  void Serve();
  void ServeConnection(int fd);
  bool Consume(Peer& peer, std::string& raw);
  bool Open(Peer& peer, std::string& raw);

  const std::string path_;
  UniqueFd listener_;
  UniqueFd stop_;  // an eventfd
  std::thread thread_;
  std::atomic<int> connections_{0};
  std::atomic<int> openings_{0};
  // Of the connection that is served.
  std::string nonce_;
  std::string owed_echoes_;
  bool open_ = false;
  std::uint64_t position_ = 0;
  ttrpc::Decoder decoder_;
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_CLIENT_TEST_GUEST_H_
