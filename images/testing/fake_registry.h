// A registry on a loopback port that answers as a test tells it to.
#ifndef HUSK_IMAGES_TESTING_FAKE_REGISTRY_H_
#define HUSK_IMAGES_TESTING_FAKE_REGISTRY_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/common/mutex.h"
#include "agent/common/unique_fd.h"
#include "images/testing/connection.h"

namespace husk::images::testing {

struct FakeRequest {
  std::string method;
  std::string target;                          // path and query
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  int connection = 0;       // counts from 1
  std::string client_name;  // of the certificate that the client has shown

  // Empty: it has none.
  [[nodiscard]] std::string Authorization() const {
    const auto found = headers.find("authorization");
    return found == headers.end() ? "" : found->second;
  }
};

struct FakeResponse {
  int status = 200;
  std::vector<std::string> headers;  // "Name: value"
  std::string body;
  // Sends so many bytes of the body, though Content-Length promises all, and closes the connection.
  std::size_t cut_at = std::string::npos;
  bool reset = false;    // closes with a reset instead of an end
  bool endless = false;  // the body again and again, without a Content-Length
  bool silent = false;   // not a byte
  // Not 0: one byte at a time, headers and body, with such a pause after each.
  int milliseconds_per_byte = 0;
};

// Every connection has a thread of its own. It stays open for further requests, unless the answer was to be cut. The
// handler is called from those threads.
class FakeRegistry {
 public:
  using Handler = std::function<FakeResponse(const FakeRequest&)>;
  explicit FakeRegistry(Handler handler, std::optional<FakeTls> tls = std::nullopt);
  ~FakeRegistry();
  FakeRegistry(const FakeRegistry&) = delete;
  FakeRegistry& operator=(const FakeRegistry&) = delete;

  // "127.0.0.1:port"
  [[nodiscard]] std::string host() const;
  // What was asked so far.
  std::vector<FakeRequest> requests();
  // How many requests had this target.
  std::size_t Count(const std::string& target);
  // Bytes of bodies that clients have taken, or that wait in sockets.
  [[nodiscard]] std::uint64_t body_bytes() const { return body_bytes_; }

 private:
  void Accept();
  void Serve(int fd, int number);
  bool ReceiveRequest(Connection& connection, std::string& bytes, FakeRequest& request);
  // True if the connection may carry another request.
  bool Answer(Connection& connection, const FakeResponse& response);

  const Handler handler_;
  const std::optional<FakeTls> tls_;
  UniqueFd listener_;
  UniqueFd stop_;
  std::uint16_t port_ = 0;
  std::atomic<std::uint64_t> body_bytes_ = 0;
  Mutex mutex_;
  std::vector<FakeRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::jthread acceptor_;
};

// An image made in the test: blobs and manifest by path, as a registry shows them.
class FakeImage {
 public:
  struct Layer {
    std::string compressed;
    std::string diff_id;
    std::string digest;
  };
  // Adds a layer of this archive, "gzip", "zstd" or "none".
  void AddLayer(const std::string& archive, const std::string& compression = "gzip");
  // `repository` as in "app". Serves the manifest as `tag` and by its digest.
  void Finish(const std::string& repository, const std::string& tag);
  // 404 for what there is not.
  [[nodiscard]] FakeResponse Answer(const std::string& target) const;
  [[nodiscard]] std::string BlobTarget(std::size_t layer) const;

  std::vector<Layer> layers;
  std::string config = R"("config":{"Cmd":["/bin/true"]})";
  std::string annotations = "{}";  // of the manifest, JSON
  std::string manifest;
  std::string manifest_digest;
  std::string config_digest;
  // By path below /v2/.
  std::map<std::string, FakeResponse> answers;

 private:
  std::string repository_;
};

}  // namespace husk::images::testing

#endif  // HUSK_IMAGES_TESTING_FAKE_REGISTRY_H_
