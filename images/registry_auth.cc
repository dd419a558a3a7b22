#include "images/registry_auth.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "images/text.h"

namespace husk::images {
namespace {

constexpr std::size_t kMaximumTokenDocument = std::size_t{1} << 20;

bool IsTokenCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

// Takes a token, or nothing.
std::string_view TakeToken(std::string_view& text) {
  std::size_t length = 0;
  while (length < text.size() && IsTokenCharacter(text[length])) ++length;
  const std::string_view token = text.substr(0, length);
  text.remove_prefix(length);
  return token;
}

void SkipSeparators(std::string_view& text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t' || text.front() == ',')) text.remove_prefix(1);
}

std::string TakeValue(std::string_view& text) {
  if (!text.starts_with('"')) return std::string(TakeToken(text));
  std::string value;
  std::size_t i = 1;
  for (; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) ++i;
    value += text[i];
  }
  text.remove_prefix(std::min(i + 1, text.size()));
  return value;
}

// The host a credential is for: "https://host:port/path" and "host:port" both occur.
std::string HostOf(std::string_view server_address) {
  if (const std::size_t scheme = server_address.find("://"); scheme != std::string_view::npos) {
    server_address.remove_prefix(scheme + 3);
  }
  return std::string(server_address.substr(0, server_address.find('/')));
}

bool IsFor(const RegistryCredentials& credentials, const Reference& reference) {
  if (credentials.server_address.empty()) return true;
  const std::string host = HostOf(credentials.server_address);
  // The old name of the default registry is normalised as in a reference.
  const StatusOr<Reference> normalised = ParseReference(host + "/x/y");
  return host == ApiHost(reference.host) || (normalised.ok() && normalised->host == reference.host);
}

}  // namespace

std::vector<AuthChallenge> ParseChallenges(std::string_view header) {
  std::vector<AuthChallenge> challenges;
  while (true) {
    SkipSeparators(header);
    const std::string word = ToLower(TakeToken(header));
    if (word.empty()) return challenges;
    if (header.starts_with('=')) {
      header.remove_prefix(1);
      std::string value = TakeValue(header);
      if (!challenges.empty()) challenges.back().parameters[word] = std::move(value);
    } else {
      challenges.push_back({word, {}});
    }
  }
}

std::optional<std::string> ParseToken(std::string_view document) {
  const auto json = nlohmann::json::parse(document, nullptr, /*allow_exceptions=*/false);
  for (const char* key : {"token", "access_token"}) {
    if (!json.is_object() || !json.contains(key) || !json[key].is_string()) continue;
    const auto& token = json[key].get_ref<const std::string&>();
    const auto is_control = [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); };
    if (!token.empty() && std::none_of(token.begin(), token.end(), is_control)) return token;
  }
  return std::nullopt;
}

RegistryAuth::RegistryAuth(const Reference& reference, const RegistryCredentials& credentials,
                           std::string authorization)
    : scope_(Concat("repository:", reference.repository, ":pull")), authorization_(std::move(authorization)) {
  if (!authorization_.empty()) secrets_.push_back(authorization_.substr(authorization_.find(' ') + 1));
  if (!IsFor(credentials, reference)) return;
  identity_token_ = credentials.identity_token;
  registry_token_ = credentials.registry_token;
  std::string user_and_password;
  if (!credentials.username.empty() || !credentials.password.empty()) {
    user_and_password = Concat(credentials.username, ":", credentials.password);
  } else if (!credentials.auth.empty() && absl::Base64Unescape(credentials.auth, &user_and_password)) {
    // Some tools pad the decoded text with NULs.
    while (user_and_password.ends_with('\0')) user_and_password.pop_back();
  }
  if (!user_and_password.empty()) basic_ = Concat("Basic ", absl::Base64Escape(user_and_password));
  if (!registry_token_.empty() && authorization_.empty()) authorization_ = Concat("Bearer ", registry_token_);
  secrets_.insert(secrets_.end(), {credentials.password, credentials.auth, identity_token_, registry_token_});
  if (!user_and_password.empty()) {
    secrets_.push_back(absl::Base64Escape(user_and_password));
    secrets_.push_back(user_and_password.substr(user_and_password.find(':') + 1));
  }
}

std::string RegistryAuth::Authorization() const {
  const MutexLock lock(mutex_);
  return authorization_;
}

std::string RegistryAuth::WithoutSecrets(std::string text) const {
  if (text.empty()) return text;
  const auto hide = [&text](std::string_view secret) {
    // Shorter ones would tear up innocent words; they are no secrets.
    constexpr std::size_t kShortest = 4;
    constexpr std::string_view kHidden = "[secret]";
    if (secret.size() < kShortest) return;
    for (std::size_t at = 0; (at = text.find(secret, at)) != std::string::npos; at += kHidden.size()) {
      text.replace(at, secret.size(), kHidden);
    }
  };
  for (const std::string& secret : secrets_) hide(secret);
  const std::string authorization = Authorization();
  hide(std::string_view(authorization).substr(authorization.find(' ') + 1));
  return text;
}

Status RegistryAuth::Answer(const Context& context, HttpClient& http, const HttpResponse& refused,
                            const HttpRequest& request) {
  const std::string& used = request.authorization;
  const MutexLock lock(mutex_);
  // Another thread has got a newer one meanwhile.
  if (authorization_ != used) return absl::OkStatus();
  HUSK_ASSIGN_OR_RETURN(const Url registry, ParseUrl(refused.url));
  std::vector<AuthChallenge> challenges;
  const auto [begin, end] = refused.headers.equal_range("www-authenticate");
  for (auto header = begin; header != end; ++header) {
    for (AuthChallenge& challenge : ParseChallenges(header->second)) challenges.push_back(std::move(challenge));
  }
  for (const AuthChallenge& challenge : challenges) {
    if (challenge.scheme == "bearer" && registry_token_.empty()) {
      HUSK_ASSIGN_OR_RETURN(const std::string token, FetchToken(context, http, registry, request, challenge));
      authorization_ = Concat("Bearer ", token);
      return absl::OkStatus();
    }
    if (challenge.scheme == "basic" && !basic_.empty() && used != basic_) {
      authorization_ = basic_;
      return absl::OkStatus();
    }
  }
  const bool offered = !used.empty() || !basic_.empty();
  return absl::UnauthenticatedError(offered ? "the registry refuses the credentials"
                                            : "the registry wants credentials, and there are none for it");
}

StatusOr<std::string> RegistryAuth::FetchToken(const Context& context, HttpClient& http, const Url& registry,
                                               const HttpRequest& refused, const AuthChallenge& challenge) const {
  const auto parameter = [&challenge](const char* name) {
    const auto found = challenge.parameters.find(name);
    return found == challenge.parameters.end() ? std::string() : found->second;
  };
  HUSK_ASSIGN_OR_RETURN_DOING(const Url realm, ParseUrl(parameter("realm")), "the registry's token server");
  HUSK_RETURN_IF_ERROR_DOING(CheckFollow(registry, realm), "the registry's token server");
  const std::string scope = parameter("scope").empty() ? scope_ : parameter("scope");
  const std::string query = Concat("service=", EscapeQuery(parameter("service")), "&scope=", EscapeQuery(scope));
  HttpRequest request;
  request.tls = refused.tls;
  request.limits = refused.limits;
  // Only the registry itself may see what is meant for it.
  if (registry.SameOrigin(realm)) request.private_headers = refused.private_headers;
  if (!identity_token_.empty()) {
    request.url = realm.text;
    request.form =
        Concat(query, "&grant_type=refresh_token&client_id=husk&refresh_token=", EscapeQuery(identity_token_));
  } else {
    request.url = Concat(realm.text, realm.text.find('?') == std::string::npos ? "?" : "&", query);
    request.authorization = basic_;
  }
  std::string body;
  const auto collect = [&body](const HttpResponse&, std::string_view data) {
    body += data;
    return body.size() <= kMaximumTokenDocument ? absl::OkStatus()
                                                : absl::InvalidArgumentError("the token server's answer exceeds 1 MiB");
  };
  HUSK_ASSIGN_OR_RETURN_DOING(const HttpResponse response, http.Do(context, request, collect), "get a token");
  if (response.status == 429 || response.status / 100 == 5) {
    return absl::UnavailableError(Concat("get a token: ", UrlForMessage(realm.text), " answers ", response.status));
  }
  if (response.status / 100 != 2) {
    return absl::UnauthenticatedError(Concat("get a token: ", UrlForMessage(realm.text), " answers ", response.status));
  }
  if (std::optional<std::string> token = ParseToken(body); token) return *std::move(token);
  return absl::UnauthenticatedError(Concat("get a token: ", UrlForMessage(realm.text), " answers without one"));
}

}  // namespace husk::images
