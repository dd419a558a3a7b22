#include "images/testing/fake_registry.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <sstream>
#include <utility>

#include "images/digest.h"
#include "images/testing/archive.h"
#include "images/text.h"

namespace husk::images::testing {
namespace {

FakeRequest ParseHead(const std::string& head) {
  FakeRequest request;
  std::stringstream lines(head);
  lines >> request.method >> request.target;
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    const std::size_t colon = line.find(':');
    if (colon != std::string::npos) request.headers[ToLower(line.substr(0, colon))] = Strip(line.substr(colon + 1));
  }
  return request;
}

}  // namespace

FakeRegistry::FakeRegistry(Handler handler, std::optional<FakeTls> tls)
    : handler_(std::move(handler)),
      tls_(std::move(tls)),
      listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)),
      stop_(eventfd(0, EFD_CLOEXEC)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  if (bind(listener_.get(), generic, length) != 0 || listen(listener_.get(), 64) != 0 ||
      getsockname(listener_.get(), generic, &length) != 0) {
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::jthread([this] { Accept(); });
}

FakeRegistry::~FakeRegistry() {
  const std::uint64_t one = 1;
  if (write(stop_.get(), &one, sizeof(one)) != sizeof(one)) std::abort();
  acceptor_.join();
}

std::string FakeRegistry::host() const {
  return Concat("127.0.0.1:", port_);
}

std::vector<FakeRequest> FakeRegistry::requests() {
  const MutexLock lock(mutex_);
  return requests_;
}

std::size_t FakeRegistry::Count(const std::string& target) {
  std::size_t count = 0;
  for (const FakeRequest& request : requests()) count += request.target == target ? 1 : 0;
  return count;
}

void FakeRegistry::Accept() {
  std::vector<std::jthread> connections;
  while (true) {
    pollfd fds[] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (poll(fds, 2, -1) <= 0 || fds[1].revents != 0) return;
    const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
    const int number = static_cast<int>(connections.size()) + 1;
    if (fd >= 0) connections.emplace_back([this, fd, number] { Serve(fd, number); });
  }
}

void FakeRegistry::Serve(int fd, int number) {
  Connection connection(UniqueFd(fd), stop_.get(), tls_);
  const std::string client_name = connection.client_name();
  std::string bytes;
  while (connection.ok()) {
    FakeRequest request;
    if (!ReceiveRequest(connection, bytes, request)) return;
    request.connection = number;
    request.client_name = client_name;
    {
      const MutexLock lock(mutex_);
      requests_.push_back(request);
    }
    if (!Answer(connection, handler_(request))) return;
  }
}

bool FakeRegistry::ReceiveRequest(Connection& connection, std::string& bytes, FakeRequest& request) {
  std::size_t end = std::string::npos;
  while ((end = bytes.find("\r\n\r\n")) == std::string::npos) {
    const std::string more = connection.Receive();
    if (more.empty()) return false;
    bytes += more;
  }
  request = ParseHead(bytes.substr(0, end));
  bytes.erase(0, end + 4);
  const auto header = request.headers.find("content-length");
  const std::size_t length = header == request.headers.end() ? 0 : std::stoul(header->second);
  while (bytes.size() < length) {
    const std::string more = connection.Receive();
    if (more.empty()) return false;
    bytes += more;
  }
  request.body = bytes.substr(0, length);
  bytes.erase(0, length);
  return true;
}

bool FakeRegistry::Answer(Connection& connection, const FakeResponse& response) {
  if (response.silent) {
    connection.Receive();
    return false;
  }
  std::string head = Concat("HTTP/1.1 ", response.status, " x\r\n");
  if (!response.endless) head += Concat("Content-Length: ", response.body.size(), "\r\n");
  for (const std::string& header : response.headers) head += header + "\r\n";
  head += "\r\n";
  const std::string_view body = std::string_view(response.body).substr(0, response.cut_at);
  if (response.milliseconds_per_byte != 0) {
    for (const char byte : head + std::string(body)) {
      if (!connection.Send({&byte, 1}) || !connection.Sleep(response.milliseconds_per_byte)) return false;
    }
    return true;
  }
  connection.Send(head);
  if (connection.Send(body)) body_bytes_ += body.size();
  while (response.endless && connection.Send(response.body)) body_bytes_ += response.body.size();
  if (response.reset) {
    // What was sent would be lost with a reset that comes too soon.
    constexpr int kDelivered = 50;
    static_cast<void>(connection.Sleep(kDelivered));
    connection.Reset();
  }
  if (response.cut_at != std::string::npos) connection.EndSending();
  return response.cut_at == std::string::npos && connection.ok();
}

void FakeImage::AddLayer(const std::string& archive, const std::string& compression) {
  Layer layer;
  layer.diff_id = DigestOf(archive);
  layer.compressed = compression == "gzip" ? Gzip(archive) : compression == "zstd" ? Zstd(archive) : archive;
  layer.digest = DigestOf(layer.compressed);
  layers.push_back(layer);
}

void FakeImage::Finish(const std::string& repository, const std::string& tag) {
  repository_ = repository;
  std::vector<std::string> diff_ids;
  std::vector<std::string> descriptors;
  for (const Layer& layer : layers) {
    diff_ids.push_back("\"" + layer.diff_id + "\"");
    descriptors.push_back(Concat(R"({"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":")", layer.digest,
                                 R"(","size":)", layer.compressed.size(), "}"));
    answers[Concat("/v2/", repository, "/blobs/", layer.digest)] = {.body = layer.compressed};
  }
  const std::string document = Concat(R"({"os":"linux","architecture":"amd64",)", config, R"(,"rootfs":{"diff_ids":[)",
                                      Join(diff_ids, ","), "]}}");
  config_digest = DigestOf(document);
  answers[Concat("/v2/", repository, "/blobs/", config_digest)] = {.body = document};
  manifest = Concat(R"({"schemaVersion":2,"config":{"digest":")", config_digest, R"(","size":)", document.size(),
                    R"(},"layers":[)", Join(descriptors, ","), R"(],"annotations":)", annotations, "}");
  manifest_digest = DigestOf(manifest);
  const FakeResponse response{.headers = {"Content-Type: application/vnd.oci.image.manifest.v1+json"},
                              .body = manifest};
  answers[Concat("/v2/", repository, "/manifests/", tag)] = response;
  answers[Concat("/v2/", repository, "/manifests/", manifest_digest)] = response;
}

FakeResponse FakeImage::Answer(const std::string& target) const {
  const auto found = answers.find(target);
  return found == answers.end() ? FakeResponse{.status = 404, .body = "{\"errors\":[]}"} : found->second;
}

std::string FakeImage::BlobTarget(std::size_t layer) const {
  return Concat("/v2/", repository_, "/blobs/", layers[layer].digest);
}

}  // namespace husk::images::testing
