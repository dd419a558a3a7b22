#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "cri/huskctl/commands.h"
#include "cri/huskctl/support.h"

namespace husk::huskctl {

StatusOr<int> ListImages(Client& client, bool json) {
  HUSK_ASSIGN_OR_RETURN(const api::ListImagesResponse images, client.Call(api::ListImagesRequest()));
  if (json) {
    nlohmann::json list = nlohmann::json::array();
    for (const api::Image& image : images.images()) {
      list.push_back({{"id", image.id()},
                      {"tags", std::vector<std::string>(image.repo_tags().begin(), image.repo_tags().end())},
                      {"digests", std::vector<std::string>(image.repo_digests().begin(), image.repo_digests().end())},
                      {"size", image.size()},
                      {"pinned", image.pinned()}});
    }
    std::printf("%s\n", list.dump(2).c_str());
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"IMAGE", "ID", "SIZE"}};
  for (const api::Image& image : images.images()) {
    std::vector<std::string> names(image.repo_tags().begin(), image.repo_tags().end());
    if (names.empty()) names.assign(image.repo_digests().begin(), image.repo_digests().end());
    if (names.empty()) names.emplace_back("-");
    for (const std::string& name : names) rows.push_back({name, ShortId(image.id()), ReadableBytes(image.size())});
  }
  std::fputs(Table(rows).c_str(), stdout);
  return 0;
}

StatusOr<int> Pull(Client& client, const std::string& image, const std::string& credentials) {
  api::AuthConfig auth;
  if (!credentials.empty()) {
    const std::size_t colon = credentials.find(':');
    if (colon == std::string::npos) return absl::InvalidArgumentError("--credentials: expected USER:PASSWORD");
    auth.set_username(credentials.substr(0, colon));
    auth.set_password(credentials.substr(colon + 1));
  }
  HUSK_ASSIGN_OR_RETURN(const std::string id, PullWithProgress(client, image, auth));
  std::printf("%s\n", id.c_str());
  return 0;
}

StatusOr<int> RemoveImage(Client& client, const std::string& image) {
  api::ImageStatusRequest status;
  status.mutable_image()->set_image(image);
  HUSK_ASSIGN_OR_RETURN(const api::ImageStatusResponse present, client.Call(status));
  if (!present.has_image()) {
    return absl::NotFoundError(absl::StrCat("there is no image \"", image, "\"; huskctl images lists what there is"));
  }
  api::RemoveImageRequest request;
  request.mutable_image()->set_image(image);
  HUSK_RETURN_IF_ERROR(client.Call(request).status());
  std::printf("removed %s\n", image.c_str());
  return 0;
}

}  // namespace husk::huskctl
