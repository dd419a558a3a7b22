// Talks with a registry about one repository: manifests and blobs, with authentication, retries and checked digests.
#ifndef HUSK_IMAGES_REGISTRY_CLIENT_H_
#define HUSK_IMAGES_REGISTRY_CLIENT_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "images/http_client.h"
#include "images/image_service.h"
#include "images/manifest.h"
#include "images/reference.h"
#include "images/registry_auth.h"
#include "images/registry_hosts.h"

namespace husk::images {

struct RetryPolicy {
  int attempts = 5;         // in a row without progress
  int total_attempts = 20;  // with progress
  // Less than so many bytes, unless they are the last, are no progress: a trickle does not go on for ever.
  std::uint64_t least_progress = std::uint64_t{64} << 10;
  std::chrono::milliseconds first_pause{250};       // doubles each time
  std::chrono::milliseconds longest_pause{30'000};  // also of those that a server asks for
};

// What one request, and one document or blob, may cost. A mirror is no reason to wait: others have the same.
struct RegistryLimits {
  HttpLimits http;
  RetryPolicy retry;
  HttpLimits mirror_http{.connect = std::chrono::milliseconds(3000), .silence = std::chrono::seconds(10)};
  RetryPolicy mirror_retry{.attempts = 1, .total_attempts = 5};
};

// For one pull. Asks the endpoints in their order until one has what is wanted; a mirror that fails otherwise than by
// not having it is not asked again. Thread safe; each thread brings its own HttpClient. Errors are the last endpoint's,
// name the URL, and say what the others answered: NOT_FOUND, UNAUTHENTICATED, UNAVAILABLE, DATA_LOSS,
// INVALID_ARGUMENT, FAILED_PRECONDITION, or the context's.
class RegistryClient {
 public:
  // Called with "GET <url>" before each request.
  using Activity = std::function<void(const std::string& doing)>;
  using Sink = std::function<Status(std::string_view data)>;

  RegistryClient(const Reference& reference, const RegistryCredentials& credentials,
                 std::vector<RegistryEndpoint> endpoints, const RegistryLimits& limits, Activity activity);
  ~RegistryClient();
  RegistryClient(const RegistryClient&) = delete;
  RegistryClient& operator=(const RegistryClient&) = delete;

  struct Document {
    std::string body;
    std::string media_type;
    std::string digest;
  };
  // `which` is a tag or a digest. 4 MiB at most.
  StatusOr<Document> FetchManifest(const Context& context, HttpClient& http, const std::string& which);
  // A small blob, as a whole. INVALID_ARGUMENT if it is larger than `limit` bytes.
  StatusOr<std::string> FetchBlob(const Context& context, HttpClient& http, const Descriptor& blob,
                                  std::uint64_t limit);
  // Streams a blob. After a failure in the middle it goes on where it was, be it from another endpoint; `sink` sees
  // each byte once, and never more than the blob's size. The sink checks the digest; its errors end the stream.
  Status StreamBlob(const Context& context, HttpClient& http, const Descriptor& blob, const Sink& sink);
  // After content turned out wrong: no mirror is asked again. False if none was left anyway.
  bool DistrustMirrors();

 private:
  struct Attempt {
    Status status;
    bool retry = false;
    bool progress = false;
    std::chrono::milliseconds pause{0};  // at least, as the server says
  };
  struct Host;
  struct Stream;

  // Calls `ask` for one endpoint after the other.
  Status AskHosts(const Context& context, bool resolve, const std::function<Status(Host& host)>& ask);
  Status WithRetries(const Context& context, const Host& host, const std::function<Attempt()>& attempt) const;
  StatusOr<Document> FetchManifestFrom(const Context& context, HttpClient& http, Host& host, const std::string& which);
  // One request, with authentication as it turns out to be needed.
  StatusOr<HttpResponse> Send(const Context& context, HttpClient& http, Host& host, HttpRequest request,
                              const HttpClient::BodySink& sink);
  // Sorts what came of a request.
  static Attempt Judge(const StatusOr<HttpResponse>& response, const std::string& url);
  Attempt StreamOnce(const Context& context, HttpClient& http, Host& host, Stream& stream);

  const std::string repository_;
  const RegistryLimits limits_;
  const Activity activity_;
  std::vector<std::unique_ptr<Host>> hosts_;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_REGISTRY_CLIENT_H_
