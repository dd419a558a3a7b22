#include "sandbox/port_forward.h"

#include <chrono>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/client/agent_client.h"
#include "agent/common/printable.h"
#include "sandbox/id.h"
#include "sandbox/logging.h"

namespace husk::sandbox {
namespace {

using Clock = Context::Clock;
using std::chrono::milliseconds;

constexpr auto kPollWait = milliseconds(5000);
constexpr auto kCleanupTimeout = std::chrono::seconds(10);
// Of the guest's output at a time: together with what AwaitRoom lets lie, what a slow client costs.
constexpr std::uint32_t kPollBytes = 512 << 10;

// Of the guest, about a connection that failed.
constexpr std::size_t kMaximumWords = 1024;

// What one of the threads found ends the other one too.
class Carrier {
 public:
  Carrier(const Context& context, agent::AgentClient& client, std::string forwarding_id, PortExchange& exchange)
      : context_(context.WithStopToken(stop_.get_token())),
        client_(client),
        forwarding_id_(std::move(forwarding_id)),
        exchange_(exchange) {}

  Status Run() {
    Status received;
    std::thread receiver([this, &received] {
      received = Receive();
      stop_.request_stop();
    });
    const Status sent = Send();
    stop_.request_stop();
    receiver.join();
    // The second one to end was cancelled by the first.
    if (sent.ok() || !absl::IsCancelled(sent)) return sent;
    return received.ok() ? sent : received;
  }

 private:
  Status Send() {
    while (true) {
      HUSK_ASSIGN_OR_RETURN(const PortExchange::Batch batch, exchange_.Next(context_));
      if (batch.empty()) return absl::OkStatus();
      HUSK_RETURN_IF_ERROR(SendBatch(batch));
    }
  }

  Status SendBatch(const PortExchange::Batch& batch) {
    agent::v1::SendForwardingRequest request;
    request.set_forwarding_id(forwarding_id_);
    for (const auto& opening : batch.openings) {
      agent::v1::Dial& dial = *request.add_dials();
      dial.set_connection(opening.connection);
      dial.set_port(opening.port);
    }
    for (const auto& piece : batch.pieces) {
      agent::v1::ConnectionInput& input = *request.add_inputs();
      input.set_connection(piece.connection);
      input.set_offset(piece.offset);
      input.set_data(piece.bytes);
      input.set_end(piece.end);
    }
    for (const std::uint64_t closed : batch.closed) request.add_closed(closed);
    HUSK_ASSIGN_OR_RETURN(const agent::v1::SendForwardingResponse response, client_.SendForwarding(context_, request));
    // In the pieces' order, without those that the guest does not know.
    int next = 0;
    for (const auto& piece : batch.pieces) {
      if (next == response.taken_size() || response.taken(next).connection() != piece.connection) {
        exchange_.Failed(piece.connection, absl::UnavailableError("the guest does not know the connection any more"));
        continue;
      }
      exchange_.Taken(piece, response.taken(next++).offset());
    }
    return absl::OkStatus();
  }

  Status Receive() {
    agent::v1::PollForwardingRequest request;
    request.set_forwarding_id(forwarding_id_);
    request.set_maximum_bytes(kPollBytes);
    request.set_wait_milliseconds(static_cast<std::uint32_t>(kPollWait.count()));
    while (true) {
      HUSK_RETURN_IF_ERROR(exchange_.AwaitRoom(context_));
      const auto asked_at = Clock::now();
      HUSK_ASSIGN_OR_RETURN(const agent::v1::PollForwardingResponse response,
                            client_.PollForwarding(context_, request));
      request.clear_receipts();
      bool news_of_use = false;
      for (const agent::v1::ConnectionNews& news : response.news()) news_of_use |= Digest(news, request);
      const bool early = Clock::now() - asked_at < kPollWait;
      // An agent that says nothing at once, or what nobody can use, must not make this thread spin.
      if (!news_of_use && early) HUSK_RETURN_IF_ERROR(SleepFor(context_, milliseconds(100)));
    }
  }

  // False if nothing in it is new, or it is about a connection that is no more: there may be late news of those that
  // the client has closed. Everything in it is the guest's word.
  bool Digest(const agent::v1::ConnectionNews& news, agent::v1::PollForwardingRequest& request) {
    const bool fresh = exchange_.IsNews(news.connection(), news.version(), news.offset() + news.data().size());
    const StatusOr<std::uint64_t> next = exchange_.Output(news.connection(), news.offset(), news.data(), news.end());
    if (!next.ok()) {
      if (absl::IsNotFound(next.status())) return false;
      exchange_.Failed(news.connection(), next.status());
      return true;
    }
    if (!news.error().empty()) {
      exchange_.Failed(news.connection(), absl::UnavailableError(Printable(news.error(), kMaximumWords)));
      return true;
    }
    if (news.writable()) exchange_.Writable(news.connection());
    agent::v1::ConnectionReceipt& receipt = *request.add_receipts();
    receipt.set_connection(news.connection());
    receipt.set_version(news.version());
    receipt.set_offset(*next);
    return fresh;
  }

  std::stop_source stop_;
  const Context context_;
  agent::AgentClient& client_;
  const std::string forwarding_id_;
  PortExchange& exchange_;
};

}  // namespace

Status ForwardPorts(const Context& context, Pod& pod, PortExchange& exchange) {
  HUSK_RETURN_IF_ERROR(pod.CheckReady());
  const auto client = pod.client();
  if (client == nullptr) return absl::FailedPreconditionError(absl::StrCat("pod ", pod.id(), " has no VM"));
  const std::string id = NewId();
  agent::v1::OpenForwardingRequest open;
  open.set_forwarding_id(id);
  Status done = client->OpenForwarding(context, open);
  if (done.ok()) done = Carrier(context, *client, id, exchange).Run();
  if (!pod.ended()) {
    // After a failed opening too: its answer may have been lost.
    agent::v1::CloseForwardingRequest close;
    close.set_forwarding_id(id);
    const Status closed = client->CloseForwarding(context.Detached(kCleanupTimeout), close);
    if (!closed.ok()) spdlog::warn("pod={} close the forwarded connections: {}", pod.id(), Words(closed));
  }
  return Annotate(done, absl::StrCat("forward ports of pod ", pod.id()));
}

}  // namespace husk::sandbox
