// How a connection to a registry is authenticated, by files that an administrator names.
#ifndef HUSK_IMAGES_TLS_SETTINGS_H_
#define HUSK_IMAGES_TLS_SETTINGS_H_

#include <string>
#include <vector>

#include "agent/common/status.h"

namespace husk::images {

struct ClientCertificate {
  std::string certificate;  // a PEM file
  std::string key;          // a PEM file, without a passphrase
};

struct TlsSettings {
  std::string authorities;  // PEM certificates, trusted beside the system's
  std::vector<ClientCertificate> clients;
  bool skip_verify = false;
};

// Appends the certificates in `path` to the authorities. FAILED_PRECONDITION if there is none in it.
Status AddAuthority(const std::string& path, TlsSettings* tls);

// Makes an SSL_CTX answer a server that asks for a certificate: of several it shows one that the server's list of
// authorities has issued, else the first. `tls` is a TlsSettings with clients, which outlives the SSL_CTX.
bool OfferClientCertificates(void* ssl_context, void* tls);

// Adds the pair if the files hold a certificate and its key; FAILED_PRECONDITION if not.
Status AddClient(const std::string& certificate, const std::string& key, TlsSettings* tls);

}  // namespace husk::images

#endif  // HUSK_IMAGES_TLS_SETTINGS_H_
