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

void SendAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

// Empty when the peer is gone or `stop` is readable.
std::string Receive(int fd, int stop) {
  pollfd fds[] = {{fd, POLLIN, 0}, {stop, POLLIN, 0}};
  if (poll(fds, 2, -1) <= 0 || fds[1].revents != 0) return "";
  std::string bytes(65536, '\0');
  const ssize_t count = recv(fd, bytes.data(), bytes.size(), 0);
  bytes.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  return bytes;
}

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

FakeRegistry::FakeRegistry(Handler handler)
    : handler_(std::move(handler)),
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
    if (fd >= 0) connections.emplace_back([this, fd] { Serve(fd); });
  }
}

void FakeRegistry::Serve(int fd) {
  const UniqueFd connection(fd);
  std::string bytes;
  std::size_t end = std::string::npos;
  while ((end = bytes.find("\r\n\r\n")) == std::string::npos) {
    const std::string more = Receive(fd, stop_.get());
    if (more.empty()) return;
    bytes += more;
  }
  FakeRequest request = ParseHead(bytes.substr(0, end));
  request.body = bytes.substr(end + 4);
  const auto length = request.headers.find("content-length");
  while (length != request.headers.end() && request.body.size() < std::stoul(length->second)) {
    const std::string more = Receive(fd, stop_.get());
    if (more.empty()) return;
    request.body += more;
  }
  {
    const MutexLock lock(mutex_);
    requests_.push_back(request);
  }
  const FakeResponse response = handler_(request);
  std::string head =
      Concat("HTTP/1.1 ", response.status, " x\r\nConnection: close\r\nContent-Length: ", response.body.size(), "\r\n");
  for (const std::string& header : response.headers) head += header + "\r\n";
  SendAll(fd, head + "\r\n");
  SendAll(fd, std::string_view(response.body).substr(0, response.cut_at));
  // A close with unread data would reset the connection; the peer closes when it has all.
  shutdown(fd, SHUT_WR);
  if (response.cut_at == std::string::npos) Receive(fd, stop_.get());
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
