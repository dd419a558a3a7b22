#include "images/http_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include "images/reference.h"
#include "images/text.h"
#include "images/url.h"

namespace husk::images {
namespace {

constexpr std::size_t kMaximumErrorBody = 4096;
constexpr std::size_t kMaximumHeaders = 256;
constexpr long kReceiveBuffer = 512L << 10;

struct ListDeleter {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using HeaderList = std::unique_ptr<curl_slist, ListDeleter>;

void AddHeader(const std::string& line, HeaderList& list) {
  if (curl_slist* const longer = curl_slist_append(list.get(), line.c_str()); longer != nullptr) {
    static_cast<void>(list.release());
    list.reset(longer);
  }
}

bool IsRedirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

void ChooseProxy(CURL* easy, const Url& url) {
  // A proxy could not reach this machine's loopback.
  if (IsLoopbackHost(url.host)) {
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    return;
  }
  // libcurl heeds the others by itself, but this one in lower case only, for the sake of CGI programs.
  if (url.scheme != "http" || std::getenv("http_proxy") != nullptr) return;  // NOLINT(concurrency-mt-unsafe): no setenv
  const char* const proxy = std::getenv("HTTP_PROXY");                       // NOLINT(concurrency-mt-unsafe): no setenv
  if (proxy != nullptr && *proxy != '\0') curl_easy_setopt(easy, CURLOPT_PROXY, proxy);
}

void UseTls(CURL* easy, const TlsSettings& tls, bool with_identity) {
  if (tls.skip_verify) {
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  if (!tls.authorities.empty()) {
    // Takes the place of the system's bundle; the system's directory of the same authorities stays.
    curl_blob blob{};
    blob.data = const_cast<char*>(tls.authorities.data());  // libcurl copies it
    blob.len = tls.authorities.size();
    blob.flags = CURL_BLOB_COPY;
    curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
    curl_easy_setopt(easy, CURLOPT_CAPATH, "/etc/ssl/certs");
  }
  if (tls.clients.empty() || !with_identity) return;
  curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION,
                   static_cast<curl_ssl_ctx_callback>([](CURL*, void* context, void* data) {
                     return OfferClientCertificates(context, data) ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
                   }));
  curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, const_cast<TlsSettings*>(&tls));  // only read
}

std::string IdentityOf(const HttpRequest& request, bool with_identity) {
  std::string identity;
  if (request.tls == nullptr || !with_identity) return identity;
  for (const ClientCertificate& client : request.tls->clients) {
    identity += Concat(client.certificate, "\n", client.key, "\n");
  }
  return identity;
}

bool IsWorthRetrying(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SSL_CONNECT_ERROR:
      return true;
    default:
      return false;
  }
}

}  // namespace

struct HttpClient::Handles {
  CURLM* multi = curl_multi_init();
  CURL* easy = curl_easy_init();
  // The client certificates that may have been shown on the connections.
  std::string identity;

  Handles() = default;
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;
  ~Handles() {
    if (easy != nullptr) curl_easy_cleanup(easy);
    if (multi != nullptr) curl_multi_cleanup(multi);
  }
};

struct HttpClient::Transfer {
  CURL* easy;
  const HttpRequest& request;
  const BodySink& sink;
  HttpResponse response;
  Status sink_status;
  std::array<char, CURL_ERROR_SIZE> error{};

  static std::size_t OnHeader(char* data, std::size_t size, std::size_t count, void* user);
  static std::size_t OnBody(char* data, std::size_t size, std::size_t count, void* user);
};

std::optional<std::int64_t> ParseHttpDate(const std::string& text) {
  const time_t date = curl_getdate(text.c_str(), nullptr);
  return date < 0 ? std::nullopt : std::optional<std::int64_t>(date);
}

std::string HttpResponse::Header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

std::size_t HttpClient::Transfer::OnHeader(char* data, std::size_t size, std::size_t count, void* user) {
  auto& response = static_cast<Transfer*>(user)->response;
  const std::string_view line = Strip(std::string_view(data, size * count));
  // A new status line, as after "100 Continue", begins a new set of headers.
  if (line.starts_with("HTTP/")) response.headers.clear();
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos) return size * count;
  if (response.headers.size() == kMaximumHeaders) return 0;
  response.headers.emplace(ToLower(line.substr(0, colon)), std::string(Strip(line.substr(colon + 1))));
  return size * count;
}

std::size_t HttpClient::Transfer::OnBody(char* data, std::size_t size, std::size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  HttpResponse& response = transfer.response;
  curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &response.status);
  const std::string_view bytes(data, size * count);
  if (response.status / 100 == 2) {
    transfer.sink_status = transfer.sink(response, bytes);
    return transfer.sink_status.ok() ? bytes.size() : 0;
  }
  // The first bytes of a refusal are enough for a message; more of it is not worth the time.
  if (response.error_body.size() >= kMaximumErrorBody) return 0;
  response.error_body += bytes.substr(0, kMaximumErrorBody - response.error_body.size());
  return bytes.size();
}

HttpClient::HttpClient() {
  // Thread safe in this libcurl, and counted.
  curl_global_init(CURL_GLOBAL_DEFAULT);
  handles_ = std::make_unique<Handles>();
}

HttpClient::~HttpClient() {
  handles_.reset();
  curl_global_cleanup();
}

StatusOr<HttpResponse> HttpClient::Do(const Context& context, const HttpRequest& request, const BodySink& sink) {
  HttpRequest next = request;
  bool with_identity = true;
  for (int followed = 0;; ++followed) {
    HUSK_ASSIGN_OR_RETURN(HttpResponse response, Exchange(context, next, with_identity, sink));
    const std::string location = response.Header("location");
    if (!IsRedirect(response.status) || location.empty() || !request.form.empty()) return response;
    if (followed == request.limits.redirects) {
      return absl::PermissionDeniedError(
          Concat("GET ", UrlForMessage(request.url), ": more than ", followed, " redirects"));
    }
    HUSK_ASSIGN_OR_RETURN(const Url from, ParseUrl(next.url));
    HUSK_ASSIGN_OR_RETURN_DOING(const Url to, ResolveUrl(from, location),
                                Concat("redirect of ", UrlForMessage(next.url)));
    HUSK_RETURN_IF_ERROR_DOING(CheckFollow(from, to), Concat("redirect of ", UrlForMessage(next.url)));
    // Once dropped it stays dropped: a later redirect back here could be the other host's doing.
    if (!from.SameOrigin(to)) {
      next.authorization.clear();
      next.private_headers.clear();
      with_identity = false;
    }
    next.url = to.text;
  }
}

StatusOr<HttpResponse> HttpClient::Exchange(const Context& context, const HttpRequest& request, bool with_identity,
                                            const BodySink& sink) {
  HUSK_RETURN_IF_ERROR(context.Check());
  if (std::string identity = IdentityOf(request, with_identity); identity != handles_->identity) {
    // libcurl does not tell connections and sessions apart by a certificate that its callback has shown.
    handles_ = std::make_unique<Handles>();
    handles_->identity = std::move(identity);
  }
  if (handles_->easy == nullptr || handles_->multi == nullptr)
    return absl::ResourceExhaustedError("no memory for libcurl");
  HUSK_ASSIGN_OR_RETURN(const Url url, ParseUrl(request.url));
  Transfer transfer{.easy = handles_->easy, .request = request, .sink = sink};
  transfer.response.url = request.url;
  HeaderList headers;
  AddHeader("User-Agent: husk", headers);
  for (const std::string& header : request.headers) AddHeader(header, headers);
  for (const std::string& header : request.private_headers) AddHeader(header, headers);
  if (!request.authorization.empty()) AddHeader("Authorization: " + request.authorization, headers);

  CURL* const easy = handles_->easy;
  curl_easy_reset(easy);
  curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kReceiveBuffer);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request.limits.connect.count()));
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, request.limits.slowest);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(request.limits.silence.count()));
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer.error.data());
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Transfer::OnHeader);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Transfer::OnBody);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
  ChooseProxy(easy, url);
  if (request.tls != nullptr) UseTls(easy, *request.tls, with_identity);
  if (!request.form.empty()) {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request.form.c_str());
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(request.form.size()));
  }

  const Status ran = Run(context, transfer);
  if (!transfer.sink_status.ok()) return transfer.sink_status;
  if (!ran.ok()) return Annotate(ran, Concat(request.form.empty() ? "GET " : "POST ", UrlForMessage(request.url)));
  return std::move(transfer.response);
}

Status HttpClient::Run(const Context& context, Transfer& transfer) {
  CURL* const easy = handles_->easy;
  CURLM* const multi = handles_->multi;
  const StopFd stop(context);
  curl_multi_add_handle(multi, easy);
  Status status;
  CURLcode code = CURLE_OK;
  while (true) {
    status = context.Check();
    if (!status.ok()) break;
    int running = 0;
    const CURLMcode performed = curl_multi_perform(multi, &running);
    if (performed != CURLM_OK) {
      status = absl::InternalError(curl_multi_strerror(performed));
      break;
    }
    if (running == 0) {
      int left = 0;
      if (const CURLMsg* const message = curl_multi_info_read(multi, &left); message != nullptr) {
        code = message->data.result;
      }
      break;
    }
    curl_waitfd wait{stop.get(), CURL_WAIT_POLLIN, 0};
    constexpr int kLongestWait = 1000;  // libcurl shortens it for its own timers
    curl_multi_poll(multi, &wait, 1, context.remaining_ms(kLongestWait), nullptr);
  }
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &transfer.response.status);
  curl_multi_remove_handle(multi, easy);
  if (!status.ok()) return status;
  const bool body_refused = code == CURLE_WRITE_ERROR && transfer.response.status / 100 != 2;
  if (code == CURLE_OK || body_refused) return absl::OkStatus();
  const char* const detail = transfer.error[0] != '\0' ? transfer.error.data() : curl_easy_strerror(code);
  return IsWorthRetrying(code) ? absl::UnavailableError(detail) : absl::FailedPreconditionError(detail);
}

}  // namespace husk::images
