// The image service.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>
#include <string>

#include "cri/service/service_fixture.h"

namespace husk::cri {
namespace {

namespace api = ::runtime::v1;
using grpc::StatusCode;
using testing::HasSubstr;

TEST_F(Service, PullsShowTheirProgressWhileTheyRun) {
  std::promise<void> open;
  std::promise<void> reported;
  images_.on_pull = [&](const Context&, const std::string& reference, const images::RegistryCredentials& credentials,
                        const auto& progress) -> StatusOr<images::Image> {
    EXPECT_EQ(credentials.username, "me");
    progress({.bytes_done = 10, .bytes_total = 20, .layers_done = 1, .layers_total = 2, .waiting_for = "GET x"});
    reported.set_value();
    open.get_future().wait();
    images::Image image;
    image.id = "sha256:" + reference;
    return image;
  };
  Start();
  api::PullImageResponse pulled;
  std::jthread caller([&] {
    api::PullImageRequest request;
    request.mutable_image()->set_image("app");
    request.mutable_auth()->set_username("me");
    EXPECT_TRUE(Call(&Images::PullImage, request, &pulled).ok());
  });
  reported.get_future().wait();
  api::StatusRequest request;
  request.set_verbose(true);
  api::StatusResponse status;
  ASSERT_TRUE(Call(&Runtime::Status, request, &status).ok());
  const nlohmann::json pulls = nlohmann::json::parse(status.info().at("pulls"));
  ASSERT_EQ(pulls.size(), 1U);
  EXPECT_EQ(pulls[0].at("image"), "app");
  EXPECT_EQ(pulls[0].at("bytesDone"), 10);
  EXPECT_EQ(pulls[0].at("waitingFor"), "GET x");
  open.set_value();
  caller.join();
  EXPECT_EQ(pulled.image_ref(), "sha256:app");
}

TEST_F(Service, ImagesAreAskedForByAHandlerThatIsThere) {
  Start();
  api::PullImageRequest request;
  request.mutable_image()->set_image("app");
  request.mutable_image()->set_runtime_handler("runc");
  api::PullImageResponse response;
  const grpc::Status status = Call(&Images::PullImage, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("runtime_handler: \"runc\""));
}

TEST_F(Service, FailedPullsSayItTheKubeletsWay) {
  Status error;
  images_.on_pull = [&](const auto&...) -> StatusOr<images::Image> { return error; };
  Start();
  api::PullImageRequest request;
  request.mutable_image()->set_image("app");
  api::PullImageResponse response;
  error = absl::UnavailableError("connect: refused");
  grpc::Status status = Call(&Images::PullImage, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::UNKNOWN);
  EXPECT_EQ(status.error_message(), "RegistryUnavailable: connect: refused");
  error = absl::NotFoundError("no such tag");
  status = Call(&Images::PullImage, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
}

TEST_F(Service, ImagesAreListedAndFound) {
  images::Image image;
  image.id = "sha256:1";
  image.repository_tags = {"h/a:1"};
  image.size_bytes = 9;
  image.run.environment = {"A=b\xff"};
  images_.all = {image};
  Start();
  api::ListImagesResponse list;
  ASSERT_TRUE(Call(&Images::ListImages, api::ListImagesRequest(), &list).ok());
  EXPECT_EQ(list.images(0).repo_tags(0), "h/a:1");
  api::ListImagesRequest filtered;
  filtered.mutable_filter()->mutable_image()->set_image("other");
  ASSERT_TRUE(Call(&Images::ListImages, filtered, &list).ok());
  EXPECT_EQ(list.images_size(), 0);
  api::ImageStatusRequest status;
  status.mutable_image()->set_image("sha256:1");
  status.set_verbose(true);
  api::ImageStatusResponse found;
  ASSERT_TRUE(Call(&Images::ImageStatus, status, &found).ok());
  EXPECT_EQ(found.image().size(), 9U);
  EXPECT_THAT(found.info().at("config"), HasSubstr("environment"));
  status.mutable_image()->set_image("unknown");
  ASSERT_TRUE(Call(&Images::ImageStatus, status, &found).ok());
  EXPECT_FALSE(found.has_image());
  api::RemoveImageRequest remove;
  remove.mutable_image()->set_image("sha256:1");
  api::RemoveImageResponse removed;
  EXPECT_TRUE(Call(&Images::RemoveImage, remove, &removed).ok());
  api::ImageFsInfoResponse usage;
  ASSERT_TRUE(Call(&Images::ImageFsInfo, api::ImageFsInfoRequest(), &usage).ok());
  EXPECT_EQ(usage.image_filesystems(0).fs_id().mountpoint(), "/var/lib/husk/images");
  EXPECT_EQ(usage.image_filesystems(0).used_bytes().value(), 5U);
  EXPECT_GT(usage.image_filesystems(0).timestamp(), 0);
}

}  // namespace
}  // namespace husk::cri
