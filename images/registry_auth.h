// How one pull proves to its registry who it is: not at all, by Basic, or by a bearer token.
#ifndef HUSK_IMAGES_REGISTRY_AUTH_H_
#define HUSK_IMAGES_REGISTRY_AUTH_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"
#include "images/http_client.h"
#include "images/image_service.h"
#include "images/reference.h"
#include "images/url.h"

namespace husk::images {

struct AuthChallenge {
  std::string scheme;                             // lower case
  std::map<std::string, std::string> parameters;  // names in lower case
};

// The challenges of one WWW-Authenticate header. What cannot be parsed is left out.
std::vector<AuthChallenge> ParseChallenges(std::string_view header);

// The token out of a token server's answer; nullopt if there is none, or none that is fit for a header.
std::optional<std::string> ParseToken(std::string_view json);

// Secrets appear in no error. Thread safe; the threads of one pull share it.
class RegistryAuth {
 public:
  // Credentials for another server address than the reference's host are not used.
  // `authorization` is sent from the beginning, if it is not empty.
  RegistryAuth(const Reference& reference, const RegistryCredentials& credentials, std::string authorization = "");

  // The Authorization header for the next request; empty: none.
  std::string Authorization() const;

  // After a 401 to `request`: gets what the registry asks for, with the request's limits and authorities.
  // UNAUTHENTICATED if there is nothing (more) to offer; else the token server's error.
  Status Answer(const Context& context, HttpClient& http, const HttpResponse& refused, const HttpRequest& request);
  // The text with "[secret]" for each secret in it.
  std::string WithoutSecrets(std::string text) const;

 private:
  StatusOr<std::string> FetchToken(const Context& context, HttpClient& http, const Url& registry,
                                   const HttpRequest& refused, const AuthChallenge& challenge) const;

  const std::string scope_;
  std::string basic_;  // "Basic ...", empty without a password
  std::string identity_token_;
  std::string registry_token_;
  std::vector<std::string> secrets_;
  mutable Mutex mutex_;  // held while a token is fetched, so that threads fetch one only
  std::string authorization_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace husk::images

#endif  // HUSK_IMAGES_REGISTRY_AUTH_H_
