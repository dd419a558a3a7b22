// The part of the fake guest that is about connections to its ports.
#include <algorithm>
#include <chrono>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/client/fake_client.h"

namespace husk::agent {
namespace {

constexpr std::size_t kDefaultMaximumPollBytes = std::size_t{1} << 20;

Status NoForwarding(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("there is no forwarding ", id));
}

void Take(const FakeListener& listener, const v1::ConnectionInput& input, FakeConnection& connection) {
  const std::uint64_t present = connection.input.size();
  if (input.offset() > present) return;
  const std::uint64_t skipped = std::min<std::uint64_t>(present - input.offset(), input.data().size());
  const std::uint64_t room = listener.room - std::min<std::uint64_t>(listener.room, present);
  const std::string fresh = input.data().substr(skipped, room);
  connection.input += fresh;
  if (!listener.silent) connection.output.bytes += fresh;
  if (connection.input.size() < input.offset() + input.data().size()) {
    connection.writable = false;
  } else if (input.end() && !connection.input_ended) {
    connection.input_ended = connection.output.closed = true;
    ++connection.version;
  }
}

bool Tell(FakeConnection& connection, std::size_t& room, v1::ConnectionNews& news) {
  const std::string_view data = std::string_view(connection.output.bytes).substr(0, room);
  if (data.empty() && connection.known >= connection.version) return false;
  room -= data.size();
  news.set_version(connection.version);
  news.set_writable(connection.writable);
  news.set_offset(connection.output.base);
  news.set_data(std::string(data));
  news.set_end(connection.output.closed && data.size() == connection.output.bytes.size());
  news.set_error(connection.error);
  return true;
}

}  // namespace

void FakeGuest::Listen(std::uint32_t port, FakeListener listener) {
  const MutexLock lock(state_->mutex);
  state_->listeners[port] = listener;
  for (auto& [id, forwarding] : state_->forwardings) {
    for (auto& [number, connection] : forwarding.connections) {
      if (connection.port != port || connection.writable) continue;
      connection.writable = true;
      ++connection.version;
    }
  }
  state_->changed.NotifyAll();
}

void FakeGuest::SetForwardingFilter(std::function<void(v1::PollForwardingResponse&)> filter) {
  const MutexLock lock(state_->mutex);
  state_->forwarding_filter = std::move(filter);
}

std::vector<std::string> FakeGuest::forwarding_ids() const {
  const MutexLock lock(state_->mutex);
  std::vector<std::string> ids;
  for (const auto& [id, forwarding] : state_->forwardings) ids.push_back(id);
  return ids;
}

std::size_t FakeGuest::forwarded_connections() const {
  const MutexLock lock(state_->mutex);
  std::size_t count = 0;
  for (const auto& [id, forwarding] : state_->forwardings) count += forwarding.connections.size();
  return count;
}

Status FakeAgentClient::OpenForwarding(const Context& context, const v1::OpenForwardingRequest& request) {
  return Call(context, "OpenForwarding", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    guest_.forwardings[request.forwarding_id()];
    return absl::OkStatus();
  });
}

Status FakeAgentClient::CloseForwarding(const Context& context, const v1::CloseForwardingRequest& request) {
  return Call(context, "CloseForwarding", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (request.forwarding_id().empty()) guest_.forwardings.clear();
    guest_.forwardings.erase(request.forwarding_id());
    return absl::OkStatus();
  });
}

StatusOr<v1::SendForwardingResponse> FakeAgentClient::SendForwarding(const Context& context,
                                                                     const v1::SendForwardingRequest& request) {
  v1::SendForwardingResponse response;
  HUSK_RETURN_IF_ERROR(Call(context, "SendForwarding", [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> Status {
    const auto found = guest_.forwardings.find(request.forwarding_id());
    if (found == guest_.forwardings.end()) return NoForwarding(request.forwarding_id());
    FakeForwarding& forwarding = found->second;
    for (const v1::Dial& dial : request.dials()) {
      if (dial.connection() <= forwarding.last) continue;
      forwarding.last = dial.connection();
      FakeConnection& connection = forwarding.connections[dial.connection()];
      connection.port = dial.port();
      if (!guest_.listeners.contains(dial.port())) connection.error = "connection refused";
    }
    for (const v1::ConnectionInput& input : request.inputs()) {
      const auto connection = forwarding.connections.find(input.connection());
      if (connection == forwarding.connections.end()) continue;
      Take(guest_.listeners[connection->second.port], input, connection->second);
      v1::InputTaken& taken = *response.add_taken();
      taken.set_connection(input.connection());
      taken.set_offset(connection->second.input.size());
    }
    for (const std::uint64_t closed : request.closed()) forwarding.connections.erase(closed);
    return absl::OkStatus();
  }));
  return response;
}

StatusOr<v1::PollForwardingResponse> FakeAgentClient::PollForwarding(const Context& context,
                                                                     const v1::PollForwardingRequest& request) {
  const Context limited = context.WithStopToken(closed_.get_token());
  const auto until = Context::Clock::now() + std::chrono::milliseconds(request.wait_milliseconds());
  const FakeGuest::State::Waker waker(limited, guest_);
  const MutexLock lock(guest_.mutex);
  HUSK_RETURN_IF_ERROR(Translate(context, guest_.Enter(limited, "PollForwarding")));
  v1::PollForwardingResponse response;
  for (;;) {
    const auto found = guest_.forwardings.find(request.forwarding_id());
    if (found == guest_.forwardings.end()) return NoForwarding(request.forwarding_id());
    response = CollectForwarding(request, found->second);
    if (guest_.forwarding_filter) guest_.forwarding_filter(response);
    if (response.news_size() > 0 || Context::Clock::now() >= until) return response;
    guest_.changed.WaitUntil(guest_.mutex, std::min(until, limited.deadline()));
    HUSK_RETURN_IF_ERROR(Translate(context, guest_.CheckCall(limited)));
  }
}

v1::PollForwardingResponse FakeAgentClient::CollectForwarding(const v1::PollForwardingRequest& request,
                                                              FakeForwarding& forwarding) {
  for (const v1::ConnectionReceipt& receipt : request.receipts()) {
    const auto found = forwarding.connections.find(receipt.connection());
    if (found == forwarding.connections.end()) continue;
    FakeConnection& connection = found->second;
    connection.known = std::max(connection.known, receipt.version());
    FakeStream& output = connection.output;
    const std::uint64_t offset = std::clamp(receipt.offset(), output.base, output.end());
    output.bytes.erase(0, offset - output.base);
    output.base = offset;
  }
  v1::PollForwardingResponse response;
  std::size_t room = request.maximum_bytes() == 0 ? kDefaultMaximumPollBytes : request.maximum_bytes();
  for (auto& [number, connection] : forwarding.connections) {
    v1::ConnectionNews news;
    if (!Tell(connection, room, news)) continue;
    news.set_connection(number);
    *response.add_news() = std::move(news);
  }
  return response;
}

}  // namespace husk::agent
