// Images: CRI messages and images/image_service.h.
#ifndef HUSK_CRI_CONVERT_IMAGE_H_
#define HUSK_CRI_CONVERT_IMAGE_H_

#include <cstdint>

#include "cri/proto/api.pb.h"
#include "images/image_service.h"

namespace husk::cri {

images::RegistryCredentials CredentialsFromProto(const ::runtime::v1::AuthConfig& auth);
void ImageToProto(const images::Image& image, ::runtime::v1::Image* out);
// `now`: nanoseconds since 1970.
void UsageToProto(const images::FileSystemUsage& usage, std::int64_t now, ::runtime::v1::FilesystemUsage* out);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONVERT_IMAGE_H_
