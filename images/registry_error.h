// What a registry says when it refuses, in words for a person.
#ifndef HUSK_IMAGES_REGISTRY_ERROR_H_
#define HUSK_IMAGES_REGISTRY_ERROR_H_

#include <string>
#include <string_view>

namespace husk::images {

// `body` is untrusted and may be anything. The codes and messages of the errors in it, as the distribution
// specification writes them ("MANIFEST_UNKNOWN: manifest unknown"), else the beginning of the body itself; printable,
// and at most a few hundred bytes. Empty for an empty body.
std::string RegistryErrorText(std::string_view body);

}  // namespace husk::images

#endif  // HUSK_IMAGES_REGISTRY_ERROR_H_
