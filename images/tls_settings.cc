#include "images/tls_settings.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>

#include "images/text.h"
#include "images/text_file.h"

namespace husk::images {
namespace {

struct BioDeleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct CertificateDeleter {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
struct KeyDeleter {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Bio = std::unique_ptr<BIO, BioDeleter>;
using Certificate = std::unique_ptr<X509, CertificateDeleter>;
using Key = std::unique_ptr<EVP_PKEY, KeyDeleter>;

StatusOr<std::string> ReadPem(const std::string& path) {
  constexpr std::size_t kMostMib = 4;
  return ReadTextFile(path, kMostMib);
}

// Instead of OpenSSL's own, which asks at the terminal.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*user*/) {
  return 0;
}

Bio OpenText(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

Certificate NextCertificate(BIO* bio) {
  Certificate certificate(PEM_read_bio_X509(bio, nullptr, &NoPassphrase, nullptr));
  ERR_clear_error();
  return certificate;
}

// True if one of the authorities that the server names has issued a certificate in the file.
bool IsWanted(const std::string& path, const STACK_OF(X509_NAME) * authorities) {
  if (authorities == nullptr || sk_X509_NAME_num(authorities) == 0) return true;
  const StatusOr<std::string> text = ReadPem(path);
  if (!text.ok()) return false;
  const Bio bio = OpenText(*text);
  while (const Certificate certificate = NextCertificate(bio.get())) {
    for (int i = 0; i < sk_X509_NAME_num(authorities); ++i) {
      if (X509_NAME_cmp(X509_get_issuer_name(certificate.get()), sk_X509_NAME_value(authorities, i)) == 0) return true;
    }
  }
  return false;
}

// OpenSSL's callback when a server asks for a certificate.
int ShowCertificate(SSL* ssl, void* data) {
  const auto& clients = static_cast<const TlsSettings*>(data)->clients;
  const STACK_OF(X509_NAME)* const authorities = SSL_get0_peer_CA_list(ssl);
  const ClientCertificate* chosen = &clients.front();
  for (const ClientCertificate& client : clients) {
    if (!IsWanted(client.certificate, authorities)) continue;
    chosen = &client;
    break;
  }
  SSL_set_default_passwd_cb(ssl, &NoPassphrase);
  return SSL_use_certificate_chain_file(ssl, chosen->certificate.c_str()) == 1 &&
                 SSL_use_PrivateKey_file(ssl, chosen->key.c_str(), SSL_FILETYPE_PEM) == 1
             ? 1
             : 0;
}

}  // namespace

bool OfferClientCertificates(void* ssl_context, void* tls) {
  if (ssl_context == nullptr) return false;
  SSL_CTX_set_cert_cb(static_cast<SSL_CTX*>(ssl_context), &ShowCertificate, tls);
  return true;
}

Status AddAuthority(const std::string& path, TlsSettings* tls) {
  StatusOr<std::string> text = ReadPem(path);
  if (!text.ok()) return absl::FailedPreconditionError(text.status().message());
  const Bio bio = OpenText(*text);
  if (!NextCertificate(bio.get()))
    return absl::FailedPreconditionError(Concat(Excerpt(path), " holds no PEM certificate"));
  tls->authorities += *text;
  tls->authorities += '\n';
  return absl::OkStatus();
}

Status AddClient(const std::string& certificate, const std::string& key, TlsSettings* tls) {
  const StatusOr<std::string> certificate_text = ReadPem(certificate);
  if (!certificate_text.ok()) return absl::FailedPreconditionError(certificate_text.status().message());
  const StatusOr<std::string> key_text = ReadPem(key);
  if (!key_text.ok()) return absl::FailedPreconditionError(key_text.status().message());
  const Bio certificate_bio = OpenText(*certificate_text);
  const Certificate parsed = NextCertificate(certificate_bio.get());
  if (!parsed) return absl::FailedPreconditionError(Concat(Excerpt(certificate), " holds no PEM certificate"));
  const Bio key_bio = OpenText(*key_text);
  const Key private_key(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, &NoPassphrase, nullptr));
  ERR_clear_error();
  if (!private_key) {
    return absl::FailedPreconditionError(Concat(Excerpt(key), " holds no PEM private key without a passphrase"));
  }
  if (X509_check_private_key(parsed.get(), private_key.get()) != 1) {
    ERR_clear_error();
    return absl::FailedPreconditionError(
        Concat("the key in ", Excerpt(key), " is not that of the certificate in ", Excerpt(certificate)));
  }
  tls->clients.push_back({certificate, key});
  return absl::OkStatus();
}

}  // namespace husk::images
