#include "agent/guest/forwardings.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/guest/ids.h"

namespace husk::agent {
namespace {

constexpr std::size_t kDefaultBytes = std::size_t{1} << 20;
// Leaves room in a frame for what is around the bytes.
constexpr std::size_t kMaximumBytes = std::size_t{3} << 20;
// Of one connection in an answer, so that those with much to say do not make the others wait.
constexpr std::size_t kShare = std::size_t{256} << 10;
constexpr int kMaximumNews = 4096;  // in an answer

Status UnknownForwarding(const std::string& id) {
  return absl::NotFoundError(absl::StrCat("there is no forwarding ", id));
}

}  // namespace

Status Forwardings::Open(const std::string& id) {
  HUSK_RETURN_IF_ERROR(CheckId(id));
  if (forwardings_.contains(id)) return absl::OkStatus();
  if (forwardings_.size() >= kMaximumForwardings) return absl::ResourceExhaustedError("too many forwardings");
  forwardings_[id] = std::make_unique<Forwarding>();
  return absl::OkStatus();
}

void Forwardings::Close(const std::string& id) {
  if (id.empty()) {
    while (!forwardings_.empty()) Close(std::string(forwardings_.begin()->first));
    return;
  }
  const auto found = forwardings_.find(id);
  if (found == forwardings_.end()) return;
  const std::unique_ptr<Forwarding> closed = std::move(found->second);
  forwardings_.erase(found);
  count_ -= closed->connections.size();
  Answer(*closed, UnknownForwarding(id));
}

void Forwardings::Dial(Forwarding& forwarding, const v1::Dial& dial) {
  const std::uint64_t number = dial.connection();
  if (number <= forwarding.last) return;  // a repetition
  forwarding.last = number;
  auto connection = std::make_unique<ForwardedConnection>(loop_, [this, &forwarding, number] {
    forwarding.hot.insert(number);
    changed_ = true;
  });
  if (dial.port() == 0 || dial.port() > 65535) {
    connection->Refuse(absl::StrCat(dial.port(), " is no port"));
  } else if (count_ >= kMaximumConnections) {
    connection->Refuse(absl::StrCat(kMaximumConnections, " connections into the pod are open; that is the most"));
  } else {
    connection->Dial(static_cast<std::uint16_t>(dial.port()));
  }
  forwarding.connections[number] = std::move(connection);
  forwarding.hot.insert(number);
  ++count_;
}

StatusOr<v1::SendForwardingResponse> Forwardings::Send(const v1::SendForwardingRequest& request) {
  const auto found = forwardings_.find(request.forwarding_id());
  if (found == forwardings_.end()) return UnknownForwarding(request.forwarding_id());
  Forwarding& forwarding = *found->second;
  v1::SendForwardingResponse response;
  for (const v1::Dial& dial : request.dials()) Dial(forwarding, dial);
  for (const v1::ConnectionInput& input : request.inputs()) {
    const auto connection = forwarding.connections.find(input.connection());
    if (connection == forwarding.connections.end()) continue;
    v1::InputTaken& taken = *response.add_taken();
    taken.set_connection(input.connection());
    taken.set_offset(connection->second->Write(input.offset(), input.data(), input.end()));
    forwarding.hot.insert(input.connection());
  }
  for (const std::uint64_t number : request.closed()) {
    count_ -= forwarding.connections.erase(number);
    forwarding.hot.erase(number);
  }
  changed_ = true;
  return response;
}

v1::PollForwardingResponse Forwardings::Collect(Forwarding& forwarding, std::size_t maximum_bytes) {
  v1::PollForwardingResponse response;
  std::size_t left = maximum_bytes;
  // Each of those that may have news once, beginning behind the one where the last answer ended.
  auto next = forwarding.hot.upper_bound(forwarding.told_last);
  for (std::size_t turns = forwarding.hot.size(); turns > 0 && left > 0; --turns) {
    if (next == forwarding.hot.end()) next = forwarding.hot.begin();
    const std::uint64_t number = *next;
    v1::ConnectionNews news;
    if (!forwarding.connections.at(number)->Tell(std::min(left, kShare), news)) {
      next = forwarding.hot.erase(next);
      continue;
    }
    ++next;
    left -= news.data().size();
    news.set_connection(number);
    *response.add_news() = std::move(news);
    forwarding.told_last = number;
    if (response.news_size() >= kMaximumNews) break;
  }
  return response;
}

void Forwardings::Poll(const v1::PollForwardingRequest& request, Polled done) {
  const auto found = forwardings_.find(request.forwarding_id());
  if (found == forwardings_.end()) return done(UnknownForwarding(request.forwarding_id()));
  Forwarding& forwarding = *found->second;
  Answer(forwarding, v1::PollForwardingResponse());
  for (const v1::ConnectionReceipt& receipt : request.receipts()) {
    const auto connection = forwarding.connections.find(receipt.connection());
    if (connection != forwarding.connections.end()) {
      connection->second->Acknowledge(receipt.version(), receipt.offset());
    }
  }
  const std::size_t wanted = request.maximum_bytes() == 0 ? kDefaultBytes : request.maximum_bytes();
  const std::size_t maximum_bytes = std::min(wanted, kMaximumBytes);
  v1::PollForwardingResponse response = Collect(forwarding, maximum_bytes);
  if (response.news_size() > 0 || request.wait_milliseconds() == 0) return done(std::move(response));
  forwarding.parked = Parked{.maximum_bytes = maximum_bytes, .done = std::move(done), .timer = {}};
  forwarding.parked->timer = loop_.After(std::chrono::milliseconds(request.wait_milliseconds()),
                                         [this, &forwarding] { Answer(forwarding, v1::PollForwardingResponse()); });
}

void Forwardings::Answer(Forwarding& forwarding, StatusOr<v1::PollForwardingResponse> response) {
  if (!forwarding.parked) return;
  const Parked parked = *std::exchange(forwarding.parked, std::nullopt);
  loop_.Cancel(parked.timer);
  parked.done(std::move(response));
}

void Forwardings::BeforeSleep() {
  if (!std::exchange(changed_, false)) return;
  for (const auto& [id, forwarding] : forwardings_) {
    if (!forwarding->parked || forwarding->hot.empty()) continue;
    v1::PollForwardingResponse response = Collect(*forwarding, forwarding->parked->maximum_bytes);
    if (response.news_size() > 0) Answer(*forwarding, std::move(response));
  }
}

void Forwardings::Forget() {
  for (const auto& [id, forwarding] : forwardings_) {
    if (forwarding->parked) loop_.Cancel(forwarding->parked->timer);
    forwarding->parked.reset();
  }
}

}  // namespace husk::agent
