#include "images/registry_client.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "images/digest.h"
#include "images/registry_error.h"
#include "images/text.h"

namespace husk::images {
namespace {

constexpr std::size_t kMaximumManifest = std::size_t{4} << 20;

std::chrono::milliseconds RetryAfter(const HttpResponse& response) {
  constexpr std::int64_t kLongest = 3600;
  const std::string text = response.Header("retry-after");
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size()) {
    const std::optional<std::int64_t> date = ParseHttpDate(text);
    if (!date) return {};
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    seconds = *date - std::chrono::duration_cast<std::chrono::seconds>(now).count();
  }
  return std::chrono::seconds(std::clamp<std::int64_t>(seconds, 0, kLongest));
}

// What a server said with its refusal, made fit for a log line.
std::string Excerpt(const HttpResponse& response) {
  const std::string text = RegistryErrorText(response.error_body);
  return text.empty() ? "" : Concat(": ", text);
}

Status CheckDigest(std::string_view body, const std::string& digest, const std::string& url) {
  const std::string actual = DigestOf(body);
  if (actual == digest) return absl::OkStatus();
  return absl::DataLossError(Concat("GET ", url, ": the content's digest is ", actual, ", expected ", digest));
}

}  // namespace

// An endpoint, and what this pull knows of it.
struct RegistryClient::Host {
  Host(RegistryEndpoint given, const Reference& reference, const RegistryCredentials& credentials,
       const RegistryLimits& limits)
      : endpoint(std::move(given)),
        retry(endpoint.mirror ? limits.mirror_retry : limits.retry),
        http(endpoint.mirror ? limits.mirror_http : limits.http),
        auth(reference, endpoint.credentials ? credentials : RegistryCredentials(), endpoint.authorization) {
    if (endpoint.dial_timeout) http.connect = *endpoint.dial_timeout;
  }

  [[nodiscard]] HttpRequest Request(const std::string& path) const {
    return {.url = Concat(endpoint.base, "/", path, endpoint.query.empty() ? "" : "?", endpoint.query),
            .private_headers = endpoint.headers,
            .tls = endpoint.tls,
            .limits = http};
  }

  const RegistryEndpoint endpoint;
  const RetryPolicy retry;
  HttpLimits http;
  RegistryAuth auth;
  std::atomic<bool> given_up = false;  // mirrors only
};

// A blob on its way.
struct RegistryClient::Stream {
  const Descriptor& blob;
  const Sink& sink;
  std::string url;  // where it comes from now
  std::uint64_t received = 0;
  bool ranges = true;   // until the server answers one wrongly
  bool failed = false;  // the sink has refused
};

RegistryClient::RegistryClient(const Reference& reference, const RegistryCredentials& credentials,
                               std::vector<RegistryEndpoint> endpoints, const RegistryLimits& limits, Activity activity)
    : repository_(reference.repository), limits_(limits), activity_(std::move(activity)) {
  for (RegistryEndpoint& endpoint : endpoints) {
    hosts_.push_back(std::make_unique<Host>(std::move(endpoint), reference, credentials, limits_));
  }
}

RegistryClient::~RegistryClient() = default;

bool RegistryClient::DistrustMirrors() {
  bool any = false;
  for (const auto& host : hosts_) {
    if (host->endpoint.mirror && !host->given_up.exchange(true)) any = true;
  }
  return any;
}

Status RegistryClient::AskHosts(const Context& context, bool resolve, const std::function<Status(Host& host)>& ask) {
  Status last = absl::FailedPreconditionError(
      Concat("no registry host is configured to ", resolve ? "resolve tags" : "pull", " ", repository_));
  std::string others;
  bool asked = false;
  for (const auto& host : hosts_) {
    if (!host->endpoint.pull || (resolve && !host->endpoint.resolve) || host->given_up) continue;
    Status status = ask(*host);
    if (status.ok()) return status;
    HUSK_RETURN_IF_ERROR(context.Check());
    if (asked) others += Concat(others.empty() ? "" : "; ", last.message());
    asked = true;
    if (host->endpoint.mirror && !absl::IsNotFound(status)) host->given_up = true;
    last = std::move(status);
  }
  if (others.empty()) return last;
  return {last.code(), Concat(last.message(), " (before that: ", others, ")")};
}

Status RegistryClient::WithRetries(const Context& context, const Host& host,
                                   const std::function<Attempt()>& attempt) const {
  const RetryPolicy& policy = host.retry;
  int without_progress = 0;
  std::chrono::milliseconds pause = policy.first_pause;
  for (int total = 1;; ++total) {
    const Attempt result = attempt();
    if (result.status.ok() || !result.retry) return result.status;
    HUSK_RETURN_IF_ERROR(context.Check());
    if (result.progress) {
      without_progress = 0;
      pause = policy.first_pause;
    } else {
      ++without_progress;
    }
    if (without_progress >= policy.attempts || total >= policy.total_attempts) {
      return total == 1 ? result.status : Annotate(result.status, Concat("gave up after ", total, " attempts"));
    }
    const auto wait = std::min(std::max(pause, result.pause), policy.longest_pause);
    const Status slept = SleepFor(context, wait);
    // The last failure says more than "deadline exceeded".
    if (!slept.ok()) return Annotate(slept, Concat("waiting to retry after: ", result.status.message()));
    pause *= 2;
  }
}

StatusOr<HttpResponse> RegistryClient::Send(const Context& context, HttpClient& http, Host& host, HttpRequest request,
                                            const HttpClient::BodySink& sink) {
  // One answer to a challenge, and one more for a token that expired just then.
  constexpr int kChallenges = 2;
  for (int challenged = 0;; ++challenged) {
    activity_(Concat("GET ", request.url));
    request.authorization = host.auth.Authorization();
    HUSK_ASSIGN_OR_RETURN(HttpResponse response, http.Do(context, request, sink));
    // Servers have been seen to say with what they were asked.
    response.error_body = host.auth.WithoutSecrets(response.error_body);
    // A 401 of the host that a redirect led to is none of the registry's.
    if (response.status != 401 || response.url != request.url || challenged == kChallenges) return response;
    HUSK_RETURN_IF_ERROR_DOING(host.auth.Answer(context, http, response, request), Concat("GET ", request.url));
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
  Document document;
  HUSK_RETURN_IF_ERROR(AskHosts(context, /*resolve=*/!IsDigest(which), [&](Host& host) -> Status {
    HUSK_ASSIGN_OR_RETURN(document, FetchManifestFrom(context, http, host, which));
    return absl::OkStatus();
  }));
  return document;
}

StatusOr<RegistryClient::Document> RegistryClient::FetchManifestFrom(const Context& context, HttpClient& http,
                                                                     Host& host, const std::string& which) {
  HttpRequest request = host.Request(Concat(repository_, "/manifests/", which));
  request.headers = {Concat("Accept: ", AcceptedManifestTypes())};
  Document document;
  HUSK_RETURN_IF_ERROR(WithRetries(context, host, [&] {
    document = Document();
    const auto collect = [&](const HttpResponse&, std::string_view data) -> Status {
      document.body += data;
      if (document.body.size() <= kMaximumManifest) return absl::OkStatus();
      return absl::InvalidArgumentError(Concat("GET ", request.url, ": the manifest is larger than 4 MiB"));
    };
    const StatusOr<HttpResponse> response = Send(context, http, host, request, collect);
    if (response.ok()) {
      document.media_type = response->Header("content-type");
      document.digest = response->Header("docker-content-digest");
    }
    Attempt attempt = Judge(response, request.url);
    if (absl::IsNotFound(attempt.status)) attempt.status = Annotate(attempt.status, "the registry has no such image");
    return attempt;
  }));
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
  while (true) {
    std::string body;
    HUSK_RETURN_IF_ERROR(StreamBlob(context, http, blob, [&body](std::string_view data) {
      body += data;
      return absl::OkStatus();
    }));
    const Status checked = CheckDigest(body, blob.digest, Concat(repository_, "/blobs/", blob.digest));
    if (checked.ok()) return body;
    if (!DistrustMirrors()) return checked;
  }
}

Status RegistryClient::StreamBlob(const Context& context, HttpClient& http, const Descriptor& blob, const Sink& sink) {
  Stream stream{.blob = blob, .sink = sink};
  Status refused;
  const Status asked = AskHosts(context, /*resolve=*/false, [&](Host& host) -> Status {
    stream.ranges = true;
    const Status status = WithRetries(context, host, [&] { return StreamOnce(context, http, host, stream); });
    if (!stream.failed) return status;
    // No other endpoint can help.
    refused = status;
    return absl::OkStatus();
  });
  return refused.ok() ? asked : refused;
}

RegistryClient::Attempt RegistryClient::StreamOnce(const Context& context, HttpClient& http, Host& host,
                                                   Stream& stream) {
  HttpRequest request = host.Request(Concat(repository_, "/blobs/", stream.blob.digest));
  stream.url = request.url;
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
        return absl::UnavailableError(
            Concat("GET ", stream.url, ": the server answers with another range than it was asked for"));
      }
      skip = partial ? 0 : stream.received;
    }
    const std::size_t skipped = static_cast<std::size_t>(std::min<std::uint64_t>(skip, data.size()));
    skip -= skipped;
    data.remove_prefix(skipped);
    if (data.empty()) return absl::OkStatus();
    if (data.size() > stream.blob.size - stream.received) {
      return absl::DataLossError(
          Concat("GET ", stream.url, ": more than the expected ", stream.blob.size, " bytes were sent"));
    }
    Status status = stream.sink(data);
    stream.failed = !status.ok();
    stream.received += data.size();
    return status;
  };
  Attempt attempt = Judge(Send(context, http, host, request, take), stream.url);
  if (stream.failed) {
    attempt.retry = false;
    return attempt;
  }
  const bool complete = stream.received == stream.blob.size;
  attempt.progress = complete ? stream.received > before : stream.received - before >= host.retry.least_progress;
  if (attempt.status.ok() && !complete) {
    attempt.status = absl::DataLossError(
        Concat("GET ", stream.url, ": only ", stream.received, " of ", stream.blob.size, " bytes were sent"));
    attempt.retry = true;
  }
  return attempt;
}

}  // namespace husk::images
