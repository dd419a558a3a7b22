#include "images/registry_client.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "images/digest.h"
#include "images/text.h"

namespace husk::images {
namespace {

constexpr std::size_t kMaximumManifest = std::size_t{4} << 20;

// Plain HTTP for this machine's own registries, as every tool allows; a TLS port means TLS there too.
std::string BaseUrl(const Reference& reference) {
  const bool plain = IsLoopbackHost(reference.host) && !reference.host.ends_with(":443");
  return Concat(plain ? "http://" : "https://", ApiHost(reference.host), "/v2/", reference.repository);
}

std::chrono::milliseconds RetryAfter(const HttpResponse& response) {
  const std::string text = response.Header("retry-after");
  int seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  // The other form, a date, is as good as none.
  constexpr int kLongest = 3600;
  if (error != std::errc() || end != text.data() + text.size() || seconds < 0) return {};
  return std::chrono::seconds(std::min(seconds, kLongest));
}

// What a server said with its refusal, made fit for a log line.
std::string Excerpt(const HttpResponse& response) {
  constexpr std::size_t kShown = 300;
  if (response.error_body.empty()) return "";
  return Concat(": ", Printable(response.error_body.substr(0, kShown)));
}

Status CheckDigest(std::string_view body, const std::string& digest, const std::string& url) {
  const std::string actual = DigestOf(body);
  if (actual == digest) return absl::OkStatus();
  return absl::DataLossError(Concat("GET ", url, ": the content's digest is ", actual, ", expected ", digest));
}

}  // namespace

// A blob on its way.
struct RegistryClient::Stream {
  std::string url;
  const Descriptor& blob;
  const Sink& sink;
  std::uint64_t received = 0;
  bool ranges = true;   // until the server answers one wrongly
  bool failed = false;  // the sink has refused
};

RegistryClient::RegistryClient(const Reference& reference, const RegistryCredentials& credentials,
                               const RetryPolicy& retry, Activity activity)
    : base_(BaseUrl(reference)), retry_(retry), activity_(std::move(activity)), auth_(reference, credentials) {}

Status RegistryClient::WithRetries(const Context& context, const std::function<Attempt()>& attempt) const {
  int without_progress = 0;
  std::chrono::milliseconds pause = retry_.first_pause;
  for (int total = 1;; ++total) {
    const Attempt result = attempt();
    if (result.status.ok() || !result.retry) return result.status;
    HUSK_RETURN_IF_ERROR(context.Check());
    if (result.progress) {
      without_progress = 0;
      pause = retry_.first_pause;
    }
    if (++without_progress >= retry_.attempts || total >= retry_.total_attempts) {
      return Annotate(result.status, Concat("gave up after ", total, " attempts"));
    }
    const auto wait = std::min(std::max(pause, result.pause), retry_.longest_pause);
    const Status slept = SleepFor(context, wait);
    // The last failure says more than "deadline exceeded".
    if (!slept.ok()) return Annotate(slept, Concat("waiting to retry after: ", result.status.message()));
    pause *= 2;
  }
}

StatusOr<HttpResponse> RegistryClient::Send(const Context& context, HttpClient& http, HttpRequest request,
                                            const HttpClient::BodySink& sink) {
  // One answer to a challenge, and one more for a token that expired just then.
  constexpr int kChallenges = 2;
  for (int challenged = 0;; ++challenged) {
    activity_(Concat("GET ", request.url));
    request.authorization = auth_.Authorization();
    HUSK_ASSIGN_OR_RETURN(HttpResponse response, http.Do(context, request, sink));
    // A 401 of the host that a redirect led to is none of the registry's.
    if (response.status != 401 || response.url != request.url || challenged == kChallenges) return response;
    HUSK_RETURN_IF_ERROR_DOING(auth_.Answer(context, http, response, request.authorization),
                               Concat("GET ", request.url));
  }
}

RegistryClient::Attempt RegistryClient::Judge(const StatusOr<HttpResponse>& response, const std::string& url) {
  if (!response.ok()) return {.status = response.status(), .retry = absl::IsUnavailable(response.status())};
  if (response->status / 100 == 2) return {};
  const std::string message = Concat("GET ", url, ": HTTP status ", response->status, Excerpt(*response));
  switch (response->status) {
    case 401:
    case 403:
      return {.status = absl::UnauthenticatedError(message)};
    case 404:
      return {.status = absl::NotFoundError(message)};
    case 408:
    case 429:
      return {.status = absl::UnavailableError(message), .retry = true, .pause = RetryAfter(*response)};
    default:
      if (response->status / 100 != 5) return {.status = absl::FailedPreconditionError(message)};
      return {.status = absl::UnavailableError(message), .retry = true, .pause = RetryAfter(*response)};
  }
}

StatusOr<RegistryClient::Document> RegistryClient::FetchManifest(const Context& context, HttpClient& http,
                                                                 const std::string& which) {
  HttpRequest request;
  request.url = Concat(base_, "/manifests/", which);
  request.headers = {Concat("Accept: ", AcceptedManifestTypes())};
  Document document;
  const Status fetched = WithRetries(context, [&] {
    document = Document();
    const auto collect = [&](const HttpResponse&, std::string_view data) -> Status {
      document.body += data;
      if (document.body.size() <= kMaximumManifest) return absl::OkStatus();
      return absl::InvalidArgumentError(Concat("GET ", request.url, ": the manifest is larger than 4 MiB"));
    };
    const StatusOr<HttpResponse> response = Send(context, http, request, collect);
    if (response.ok()) {
      document.media_type = response->Header("content-type");
      document.digest = response->Header("docker-content-digest");
    }
    return Judge(response, request.url);
  });
  HUSK_RETURN_IF_ERROR(fetched);
  if (IsDigest(which)) document.digest = which;
  if (!IsDigest(document.digest)) document.digest = DigestOf(document.body);
  HUSK_RETURN_IF_ERROR(CheckDigest(document.body, document.digest, request.url));
  return document;
}

StatusOr<std::string> RegistryClient::FetchBlob(const Context& context, HttpClient& http, const Descriptor& blob,
                                                std::uint64_t limit) {
  if (blob.size > limit) {
    return absl::InvalidArgumentError(
        Concat("blob ", blob.digest, " has ", blob.size, " bytes, more than the ", limit, " allowed"));
  }
  std::string body;
  HUSK_RETURN_IF_ERROR(StreamBlob(context, http, blob, [&](std::string_view data) -> Status {
    if (data.size() > blob.size - body.size()) {
      return absl::DataLossError(Concat("blob ", blob.digest, " is longer than ", blob.size, " bytes"));
    }
    body += data;
    return absl::OkStatus();
  }));
  HUSK_RETURN_IF_ERROR(CheckDigest(body, blob.digest, Concat(base_, "/blobs/", blob.digest)));
  return body;
}

Status RegistryClient::StreamBlob(const Context& context, HttpClient& http, const Descriptor& blob, const Sink& sink) {
  Stream stream{.url = Concat(base_, "/blobs/", blob.digest), .blob = blob, .sink = sink};
  return WithRetries(context, [&] { return StreamOnce(context, http, stream); });
}

RegistryClient::Attempt RegistryClient::StreamOnce(const Context& context, HttpClient& http, Stream& stream) {
  HttpRequest request;
  request.url = stream.url;
  const std::uint64_t start = stream.ranges ? stream.received : 0;
  if (start > 0) request.headers.push_back(Concat("Range: bytes=", start, "-"));
  const std::uint64_t before = stream.received;
  std::uint64_t skip = 0;  // bytes that came in an earlier attempt already
  bool first = true;
  const auto take = [&](const HttpResponse& response, std::string_view data) -> Status {
    if (std::exchange(first, false)) {
      const bool partial = response.status == 206;
      const bool as_asked =
          partial && start > 0 && response.Header("content-range").starts_with(Concat("bytes ", start, "-"));
      if (partial && !as_asked) {
        stream.ranges = false;
        return absl::UnavailableError("the server answers with another range than it was asked for");
      }
      skip = partial ? 0 : stream.received;
    }
    const std::size_t skipped = static_cast<std::size_t>(std::min<std::uint64_t>(skip, data.size()));
    skip -= skipped;
    data.remove_prefix(skipped);
    if (data.empty()) return absl::OkStatus();
    Status status = stream.sink(data);
    stream.failed = !status.ok();
    stream.received += data.size();
    return status;
  };
  Attempt attempt = Judge(Send(context, http, request, take), stream.url);
  attempt.progress = stream.received > before;
  if (stream.failed) {
    attempt.retry = false;
    return attempt;
  }
  if (attempt.status.ok() && stream.received < stream.blob.size) {
    attempt.status = absl::DataLossError(
        Concat("GET ", stream.url, ": only ", stream.received, " of ", stream.blob.size, " bytes were sent"));
    attempt.retry = true;
  }
  return attempt;
}

}  // namespace husk::images
