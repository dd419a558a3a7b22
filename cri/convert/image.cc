#include "cri/convert/image.h"

#include <charconv>
#include <string>
#include <string_view>

#include "cri/convert/common.h"

namespace husk::cri {

images::RegistryCredentials CredentialsFromProto(const api::AuthConfig& auth) {
  return {.username = auth.username(),
          .password = auth.password(),
          .auth = auth.auth(),
          .server_address = auth.server_address(),
          .identity_token = auth.identity_token(),
          .registry_token = auth.registry_token()};
}

void ImageToProto(const images::Image& image, api::Image* out) {
  out->set_id(image.id);
  for (const std::string& tag : image.repository_tags) out->add_repo_tags(tag);
  for (const std::string& digest : image.repository_digests) out->add_repo_digests(digest);
  out->set_size(image.size_bytes);
  out->set_pinned(image.pinned);
  for (const auto& [key, value] : image.annotations) (*out->mutable_spec()->mutable_annotations())[key] = value;
  // USER is "user[:group]". The kubelet decides runAsNonRoot by uid, or refuses when there is only a name; it asks for
  // that user when it creates the container. The guest reads digits as a number too. Numbers that no user can have are
  // told as they are, and refused then, by their number.
  const std::string_view user = std::string_view(image.run.user).substr(0, image.run.user.find(':'));
  std::int64_t uid = 0;
  const auto [end, error] = std::from_chars(user.data(), user.data() + user.size(), uid);
  if (error == std::errc() && end == user.data() + user.size()) {
    out->mutable_uid()->set_value(uid);
  } else {
    out->set_username(std::string(user));
  }
}

void UsageToProto(const images::FileSystemUsage& usage, std::int64_t now, api::FilesystemUsage* out) {
  out->set_timestamp(now);
  out->mutable_fs_id()->set_mountpoint(usage.directory);
  out->mutable_used_bytes()->set_value(usage.used_bytes);
  out->mutable_inodes_used()->set_value(usage.inodes_used);
}

}  // namespace husk::cri
