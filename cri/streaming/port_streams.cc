#include "cri/streaming/port_streams.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "cri/streaming/ports.h"

namespace husk::cri {
namespace {

// Of an id that a client makes up; clients count.
constexpr std::size_t kMaximumRequestId = 256;

// Nothing if it stands there twice: which one would count?
std::optional<std::string> Header(const WireHeaders& headers, std::string_view name) {
  std::optional<std::string> found;
  for (const auto& [key, value] : headers) {
    if (key != name) continue;
    if (found) return std::nullopt;
    found = value;
  }
  return found;
}

std::string LittleEndian(std::uint16_t port) {
  return {static_cast<char>(port & 0xff), static_cast<char>(port >> 8)};
}

std::string_view Words(const Status& status) {
  return {status.message().data(), status.message().size()};
}

}  // namespace

PortStreams::PortStreams(Options options, Wire& wire, sandbox::PortExchange& exchange)
    : options_(std::move(options)), wire_(wire), exchange_(exchange) {
  if (options_.websocket) OpenChannels();
}

void PortStreams::OpenChannels() {
  WireStream channel = 0;
  for (const std::uint16_t port : options_.ports) {
    const auto made = connections_.emplace(++last_, Connection()).first;
    Connection& connection = made->second;
    connection.port = port;
    connection.data = channel;
    connection.errors = channel + 1;
    for (const WireStream stream : {channel, channel + 1}) wire_.Send(stream, LittleEndian(port));
    channel += 2;
    Start(made);
  }
  exchange_.NoMore();
}

// ---- from the client ------------------------------------------------------------------------------------------------

void PortStreams::OnEvent(WireEvent& event, Clock::time_point now) {
  if (event.kind == WireEvent::Kind::kOpened) return OnOpened(event.stream, event.headers, now);
  const auto known = by_stream_.find(event.stream);
  if (known == by_stream_.end()) return;
  const auto found = connections_.find(known->second);
  if (found->second.data != event.stream) return;  // nothing is to be said on the stream of errors
  if (event.kind == WireEvent::Kind::kData) OnData(found, event.data);
  if (event.kind == WireEvent::Kind::kEnded) OnDataEnded(found, /*reset=*/false);
  if (event.kind == WireEvent::Kind::kReset) OnDataEnded(found, /*reset=*/true);
}

StatusOr<std::uint16_t> PortStreams::CheckPort(const std::string& text) const {
  HUSK_ASSIGN_OR_RETURN(const std::uint16_t port, ParsePort(text));
  if (options_.ports.empty() || std::find(options_.ports.begin(), options_.ports.end(), port) != options_.ports.end()) {
    return port;
  }
  return absl::InvalidArgumentError(absl::StrCat("port: ", port, " is not one of those that were asked for"));
}

void PortStreams::OnOpened(WireStream stream, const WireHeaders& headers, Clock::time_point now) {
  const auto type = Header(headers, "streamtype");
  if (type != "data" && type != "error") return wire_.Refuse(stream);
  const bool errors = type == "error";
  const auto request_id = Header(headers, "requestid");
  const auto port_text = Header(headers, "port");
  if (!request_id || request_id->empty() || request_id->size() > kMaximumRequestId) {
    return Reject(stream, errors, "requestid: there must be one header, of at most 256 bytes");
  }
  if (!port_text) return Reject(stream, errors, "port: there must be one header");
  const auto port = CheckPort(*port_text);
  if (!port.ok()) return Reject(stream, errors, std::string(Words(port.status())));

  auto known = by_request_.find(*request_id);
  if (known == by_request_.end()) {
    known = by_request_.emplace(*request_id, ++last_).first;
    Connection& made = connections_[last_];
    made.request_id = *request_id;
    made.port = *port;
    made.expires = now + options_.patience;
    incomplete_.emplace(made.expires, last_);
  }
  const auto found = connections_.find(known->second);
  Connection& connection = found->second;
  if (connection.port != *port) return Reject(stream, errors, "port: is not that of the connection's other stream");
  auto& place = errors ? connection.errors : connection.data;
  if (place) return Reject(stream, errors, "requestid: is in use");
  place = stream;
  by_stream_[stream] = found->first;
  if (connection.complete()) Start(found);
}

void PortStreams::Reject(WireStream stream, bool errors, const std::string& why) {
  if (!errors) return wire_.Refuse(stream);
  wire_.Send(stream, why);
  wire_.SendEnd(stream);
}

void PortStreams::OnData(Connections::iterator found, std::string_view bytes) {
  Connection& connection = found->second;
  if (connection.complete()) return exchange_.Input(found->first, bytes);
  if (connection.early_data.size() + bytes.size() > kMaximumEarlyData) return End(found, "");
  connection.early_data.append(bytes);
}

void PortStreams::OnDataEnded(Connections::iterator found, bool reset) {
  if (reset) {
    exchange_.Close(found->first);
    return End(found, "");
  }
  if (found->second.complete()) return exchange_.EndInput(found->first);
  found->second.early_end = true;
}

void PortStreams::Start(Connections::iterator found) {
  incomplete_.erase({found->second.expires, found->first});
  // Streams of several connections come mixed; the exchange wants rising numbers.
  auto node = connections_.extract(found);
  node.key() = ++last_;
  auto& [number, connection] = *connections_.insert(std::move(node)).position;
  by_request_[connection.request_id] = number;
  for (const WireStream stream : {*connection.data, *connection.errors}) by_stream_[stream] = number;
  exchange_.Open(number, connection.port);
  if (!connection.early_data.empty()) exchange_.Input(number, std::exchange(connection.early_data, std::string()));
  if (connection.early_end) exchange_.EndInput(number);
}

void PortStreams::Expire(Clock::time_point now) {
  while (!incomplete_.empty() && incomplete_.begin()->first <= now) {
    const auto found = connections_.find(incomplete_.begin()->second);
    const char* missing = found->second.data ? "error" : "data";
    End(found, absl::StrCat("the stream with streamtype ", missing, " did not come in time"));
  }
}

std::optional<PortStreams::Clock::time_point> PortStreams::next_expiry() const {
  if (incomplete_.empty()) return std::nullopt;
  return incomplete_.begin()->first;
}

// ---- from the exchange ----------------------------------------------------------------------------------------------

bool PortStreams::Output(std::uint64_t connection, std::string_view bytes) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return false;
  wire_.Send(*found->second.data, bytes);
  return true;
}

void PortStreams::OutputEnded(std::uint64_t connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return;
  wire_.SendEnd(*found->second.data);
  if (!options_.websocket) return;
  // No end of a channel can be told, neither ours to the client nor the client's to us: so this is the connection's.
  exchange_.Close(connection);
  End(found, "");
}

void PortStreams::Over(std::uint64_t connection, const Status& status) {
  const auto found = connections_.find(connection);
  if (found != connections_.end()) End(found, Words(status));
}

void PortStreams::EndAll(const Status& status) {
  while (!connections_.empty()) End(connections_.begin(), Words(status));
}

void PortStreams::End(Connections::iterator found, std::string_view words) {
  auto& [number, connection] = *found;
  if (connection.errors) {
    if (!words.empty()) wire_.Send(*connection.errors, words);
    wire_.SendEnd(*connection.errors);
    by_stream_.erase(*connection.errors);
  }
  if (connection.data) {
    // One that never was a connection has to be seen to be none; so has one that broke.
    if (connection.errors && words.empty()) {
      wire_.SendEnd(*connection.data);
    } else {
      wire_.Refuse(*connection.data);
    }
    by_stream_.erase(*connection.data);
  }
  incomplete_.erase({connection.expires, number});
  by_request_.erase(connection.request_id);
  connections_.erase(found);
}

}  // namespace husk::cri
