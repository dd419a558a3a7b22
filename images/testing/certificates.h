// Certificates made in a test, good for a day.
#ifndef HUSK_IMAGES_TESTING_CERTIFICATES_H_
#define HUSK_IMAGES_TESTING_CERTIFICATES_H_

#include <string>

namespace husk::images::testing {

struct TestCertificate {
  std::string certificate;  // PEM
  std::string key;          // PEM
};

// An authority that has signed itself.
TestCertificate MakeAuthority(const std::string& name);

// For a server at 127.0.0.1 or a client, issued by `authority`.
TestCertificate MakeCertificate(const std::string& name, const TestCertificate& authority);

}  // namespace husk::images::testing

#endif  // HUSK_IMAGES_TESTING_CERTIFICATES_H_
