// Talks with a registry about one repository: manifests and blobs, with authentication, retries and checked digests.
#ifndef HUSK_IMAGES_REGISTRY_CLIENT_H_
#define HUSK_IMAGES_REGISTRY_CLIENT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "images/http_client.h"
#include "images/image_service.h"
#include "images/manifest.h"
#include "images/reference.h"
#include "images/registry_auth.h"

namespace husk::images {

struct RetryPolicy {
  int attempts = 5;                            // in a row without a byte of progress
  int total_attempts = 20;                     // with progress
  std::chrono::milliseconds first_pause{250};  // doubles each time
  std::chrono::milliseconds longest_pause{30'000};
};

// Thread safe; each thread brings its own HttpClient. Errors name the URL: NOT_FOUND, UNAUTHENTICATED, UNAVAILABLE,
// DATA_LOSS, INVALID_ARGUMENT, or the context's.
class RegistryClient {
 public:
  // Called with "GET <url>" before each request.
  using Activity = std::function<void(const std::string& doing)>;
  using Sink = std::function<Status(std::string_view data)>;

  RegistryClient(const Reference& reference, const RegistryCredentials& credentials, const RetryPolicy& retry,
                 Activity activity);

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
  // Streams a blob. After a failure in the middle it goes on where it was; `sink` sees each byte once. The sink checks
  // size and digest; its errors end the stream.
  Status StreamBlob(const Context& context, HttpClient& http, const Descriptor& blob, const Sink& sink);

 private:
  struct Attempt {
    Status status;
    bool retry = false;
    bool progress = false;
    std::chrono::milliseconds pause{0};  // at least, as the server says
  };
  struct Stream;

  Status WithRetries(const Context& context, const std::function<Attempt()>& attempt) const;
  // One request, with authentication as it turns out to be needed.
  StatusOr<HttpResponse> Send(const Context& context, HttpClient& http, HttpRequest request,
                              const HttpClient::BodySink& sink);
  // Sorts what came of a request.
  static Attempt Judge(const StatusOr<HttpResponse>& response, const std::string& url);
  Attempt StreamOnce(const Context& context, HttpClient& http, Stream& stream);

  const std::string base_;  // "https://host/v2/repository"
  const RetryPolicy retry_;
  const Activity activity_;
  RegistryAuth auth_;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_REGISTRY_CLIENT_H_
