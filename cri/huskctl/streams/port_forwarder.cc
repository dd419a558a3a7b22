#include "cri/huskctl/streams/port_forwarder.h"

#include <utility>
// Boost 1.74 forgets <utility>.
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <list>

#include "absl/strings/str_cat.h"
#include "agent/common/printable.h"
#include "cri/huskctl/streams/forwarded_connection.h"

namespace husk::huskctl {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAcceptPause = std::chrono::milliseconds(200);
constexpr std::size_t kThreads = 4;  // that fetch URLs
constexpr std::size_t kMostShown = 100;

struct Place {
  boost::asio::ip::address address;
  bool may_be_missing = false;
};

StatusOr<std::vector<Place>> PlacesOf(const std::vector<std::string>& addresses) {
  std::vector<Place> places;
  for (const std::string& text : addresses.empty() ? std::vector<std::string>{"localhost"} : addresses) {
    if (text == "localhost") {
      places.push_back({.address = boost::asio::ip::address_v4::loopback()});
      places.push_back({.address = boost::asio::ip::address_v6::loopback(), .may_be_missing = true});
      continue;
    }
    error_code error;
    places.push_back({.address = boost::asio::ip::make_address(text, error)});
    if (error) {
      return absl::InvalidArgumentError(
          absl::StrCat("--address: expected an IP address or localhost, not \"", Printable(text, kMostShown), "\""));
    }
  }
  return places;
}

std::string TextOf(const tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return absl::StrCat(endpoint.address().is_v6() ? absl::StrCat("[", host, "]") : host, ":", endpoint.port());
}

// One address and port. On the io_context's thread once it runs.
struct Listener {
  Listener(boost::asio::io_context& io, std::uint16_t port) : acceptor(io), pause(io), remote(port) {}
  tcp::acceptor acceptor;
  boost::asio::steady_timer pause;
  std::uint16_t remote;
  tcp::endpoint endpoint;
};

Status ListenAt(const tcp::endpoint& wanted, Listener& listener) {
  error_code error;
  tcp::acceptor& acceptor = listener.acceptor;
  acceptor.open(wanted.protocol(), error);
  if (!error && wanted.address().is_v6()) acceptor.set_option(boost::asio::ip::v6_only(true), error);
  if (!error) acceptor.set_option(boost::asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(wanted, error);
  if (!error) acceptor.listen(boost::asio::socket_base::max_listen_connections, error);
  if (!error) listener.endpoint = acceptor.local_endpoint(error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("listen at ", TextOf(wanted)));
  return absl::OkStatus();
}

class PortForwarderImpl final : public PortForwarder {
 public:
  PortForwarderImpl(const PortForwarderOptions& options, PortForwarderParts parts)
      : options_(options), parts_(std::move(parts)) {}
  // Threads that still fetch a URL post to what must be there.
  ~PortForwarderImpl() override {
    fetchers_.join();
    for (const auto& weak : connections_) {
      if (const auto connection = weak.lock()) connection->Abandon();
    }
  }

  Status ListenEverywhere();
  [[nodiscard]] std::vector<std::string> places() const override;
  void Run() override;
  void Stop() override { io_.stop(); }

 private:
  void Accept(Listener& listener);
  void Take(const Listener& listener, tcp::socket socket);

  const PortForwarderOptions options_;
  const PortForwarderParts parts_;
  boost::asio::io_context io_{1};
  std::list<Listener> listeners_;
  std::list<std::weak_ptr<ForwardedConnection>> connections_;
  boost::asio::thread_pool fetchers_{kThreads};  // last: its threads use the rest
};

Status PortForwarderImpl::ListenEverywhere() {
  HUSK_ASSIGN_OR_RETURN(const std::vector<Place> places, PlacesOf(options_.addresses));
  for (const PortMapping& mapping : options_.ports) {
    // A free port that was found at the first address is what the others get too.
    std::uint16_t port = mapping.local;
    for (const Place& place : places) {
      Listener& listener = listeners_.emplace_back(io_, mapping.remote);
      const Status listening = ListenAt({place.address, port}, listener);
      if (listening.ok()) {
        port = listener.endpoint.port();
      } else if (place.may_be_missing) {
        listeners_.pop_back();
      } else {
        return listening;
      }
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> PortForwarderImpl::places() const {
  std::vector<std::string> texts;
  for (const Listener& listener : listeners_) {
    texts.push_back(absl::StrCat(TextOf(listener.endpoint), " -> ", listener.remote));
  }
  return texts;
}

void PortForwarderImpl::Run() {
  for (Listener& listener : listeners_) Accept(listener);
  io_.run();
}

void PortForwarderImpl::Accept(Listener& listener) {
  listener.acceptor.async_accept([this, &listener](const error_code& error, tcp::socket socket) {
    if (!error) {
      Take(listener, std::move(socket));
      return Accept(listener);
    }
    // Out of descriptors, most likely.
    parts_.complain(absl::StrCat("accept at ", TextOf(listener.endpoint), ": ", error.message()));
    listener.pause.expires_after(kAcceptPause);
    listener.pause.async_wait([this, &listener](const error_code& cancelled) {
      if (!cancelled) Accept(listener);
    });
  });
}

void PortForwarderImpl::Take(const Listener& listener, tcp::socket socket) {
  const std::uint16_t remote = listener.remote;
  const std::string route = absl::StrCat(TextOf(listener.endpoint), " -> ", remote);
  parts_.say(absl::StrCat("Handling connection for ", listener.endpoint.port()));
  auto connection = std::make_shared<ForwardedConnection>(
      io_, std::move(socket), remote,
      [this, route](const Status& why) { parts_.complain(absl::StrCat(route, ": ", std::string(why.message()))); });
  connections_.remove_if([](const std::weak_ptr<ForwardedConnection>& ended) { return ended.expired(); });
  connections_.push_back(connection);
  boost::asio::post(fetchers_, [this, connection = std::move(connection), remote]() mutable {
    StatusOr<std::string> url = parts_.url_for(remote);
    // Moved, so that the connection ends on the io_context's thread.
    boost::asio::post(io_, [this, kept = std::move(connection), fetched = std::move(url)] {
      kept->Start(fetched, options_.certificate_authority);
    });
  });
}

}  // namespace

StatusOr<std::unique_ptr<PortForwarder>> PortForwarder::Listen(const PortForwarderOptions& options,
                                                               PortForwarderParts parts) {
  auto forwarder = std::make_unique<PortForwarderImpl>(options, std::move(parts));
  HUSK_RETURN_IF_ERROR(forwarder->ListenEverywhere());
  return forwarder;
}

}  // namespace husk::huskctl
