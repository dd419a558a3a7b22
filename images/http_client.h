// HTTP requests by libcurl that end when their context does.
#ifndef HUSK_IMAGES_HTTP_CLIENT_H_
#define HUSK_IMAGES_HTTP_CLIENT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "images/tls_settings.h"

namespace husk::images {

// Seconds since 1970 of a date as headers have it.
std::optional<std::int64_t> ParseHttpDate(const std::string& text);

struct HttpLimits {
  std::chrono::milliseconds connect{15'000};
  // A transfer that is slower than `slowest` bytes a second for so long fails.
  std::chrono::seconds silence{30};
  long slowest = 1024;
  int redirects = 5;
};

struct HttpRequest {
  std::string url;
  std::vector<std::string> headers;  // "Name: value"
  // Go along with redirects within the same scheme, host and port only: the value of an Authorization header, further
  // headers, and `tls`'s client certificates. Its authorities hold for every host.
  std::string authorization;
  std::vector<std::string> private_headers;
  std::shared_ptr<const TlsSettings> tls;  // null: the system's
  HttpLimits limits;
  // A form: makes the request a POST, which follows no redirects. Empty: GET.
  std::string form;
};

struct HttpResponse {
  long status = 0;
  // Names in lower case; the last response's, after redirects.
  std::multimap<std::string, std::string> headers;
  // The beginning of a body that was not 2xx.
  std::string error_body;
  // The URL that answered, after redirects.
  std::string url;

  // The first header of that name; empty if there is none.
  [[nodiscard]] std::string Header(const std::string& name) const;
};

// Speaks HTTP/2 where the server does. Proxies are those of the environment, in lower or upper case; loopback addresses
// are asked directly. Keeps connections for its next requests. For one thread at a time.
class HttpClient {
 public:
  // Gets the pieces of a 2xx body, after `response` has status and headers. An error ends the transfer and is returned.
  using BodySink = std::function<Status(const HttpResponse& response, std::string_view data)>;

  HttpClient();
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // A response of any status is OK. Else UNAVAILABLE (connection, timeout, cut short: worth another attempt),
  // PERMISSION_DENIED (a redirect that is not followed), FAILED_PRECONDITION (TLS, a malformed URL), the sink's error,
  // or the context's.
  StatusOr<HttpResponse> Do(const Context& context, const HttpRequest& request, const BodySink& sink);

 private:
  struct Handles;
  struct Transfer;

  // `with_identity`: client certificates may be shown.
  StatusOr<HttpResponse> Exchange(const Context& context, const HttpRequest& request, bool with_identity,
                                  const BodySink& sink);
  Status Run(const Context& context, Transfer& transfer);

  std::unique_ptr<Handles> handles_;
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_HTTP_CLIENT_H_
