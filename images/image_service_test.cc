#include "images/image_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <stop_token>
#include <string>
#include <vector>

#include "images/digest.h"
#include "images/testing/archive.h"
#include "images/testing/disk_check.h"
#include "images/testing/fake_registry.h"
#include "images/text.h"

namespace husk::images {
namespace {

using ::testing::ElementsAre;
using testing::FakeImage;
using testing::FakeRegistry;
using testing::FakeRequest;
using testing::FakeResponse;
using testing::File;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeTar;

const Context kContext = Context::Background("test");

class ImageServiceTest : public ::testing::Test {
 protected:
  ImageServiceTest() : service_(*NewImageService({.directory = root_})) {}

  std::size_t BlobFiles() const {
    return testing::CountFiles(root_ + "/layers") + testing::CountFiles(root_ + "/images");
  }
  StatusOr<Image> Pull(const std::string& reference, const RegistryCredentials& credentials = {}) {
    return service_->Pull(kContext, reference, credentials, nullptr);
  }
  // Pulling must fail, saying this, and leave nothing.
  void ExpectFailure(const FakeImage& image, absl::StatusCode code, const std::string& message) {
    FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
    const auto pulled = Pull(registry.host() + "/app:1");
    EXPECT_EQ(pulled.status().code(), code) << pulled.status();
    EXPECT_THAT(std::string(pulled.status().message()), HasSubstr(message));
    EXPECT_THAT(*service_->List(), IsEmpty());
    EXPECT_EQ(BlobFiles(), 0U);
    EXPECT_EQ(testing::CountFiles(root_ + "/ingest"), 0U);
  }

  const testing::TemporaryDirectory directory_;
  const std::string root_ = directory_.path() + "/images";
  std::unique_ptr<ImageService> service_;
};

FakeImage TwoLayers() {
  FakeImage image;
  image.AddLayer(MakeTar({File("a", "first"), File("b", "first")}));
  image.AddLayer(MakeTar({File("b", "second"), File(".wh.a")}), "zstd");
  image.Finish("app", "1");
  return image;
}

TEST_F(ImageServiceTest, PullFindListRemove) {
  const FakeImage image = TwoLayers();
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  const std::string name = registry.host() + "/app";
  std::vector<PullProgress> reports;
  const auto pulled = service_->Pull(kContext, name + ":1", {}, [&](const PullProgress& p) { reports.push_back(p); });
  ASSERT_TRUE(pulled.ok()) << pulled.status();
  EXPECT_EQ(pulled->id, image.config_digest);
  EXPECT_THAT(pulled->run.command, ElementsAre("/bin/true"));
  EXPECT_GT(pulled->size_bytes, 8192U);
  EXPECT_THAT(pulled->repository_digests, ElementsAre(name + "@" + image.manifest_digest));
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back().layers_done, 2U);
  EXPECT_EQ(reports.back().bytes_done, reports.back().bytes_total);
  EXPECT_EQ(reports.back().bytes_done, image.layers[0].compressed.size() + image.layers[1].compressed.size());

  for (const std::string& reference : {name + ":1", name + "@" + image.manifest_digest, image.config_digest,
                                       image.config_digest.substr(7), name + ":other@" + image.manifest_digest}) {
    const auto found = service_->Find(reference);
    ASSERT_TRUE(found.ok() && found->has_value()) << reference << found.status();
    EXPECT_EQ((*found)->id, image.config_digest);
  }
  EXPECT_FALSE(service_->Find(name + ":2")->has_value());
  EXPECT_EQ(service_->Find("::").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(service_->List()->size(), 1U);
  EXPECT_GT(service_->Usage()->used_bytes, 0U);
  EXPECT_GE(service_->Usage()->inodes_used, 5U);
  EXPECT_EQ(BlobFiles(), 5U);

  EXPECT_TRUE(service_->Remove(kContext, name + ":1").ok());
  EXPECT_TRUE(service_->Remove(kContext, name + ":1").ok());
  EXPECT_THAT(*service_->List(), IsEmpty());
  EXPECT_EQ(BlobFiles(), 0U);
}

TEST_F(ImageServiceTest, AnnotationsAreKept) {
  FakeImage image;
  image.AddLayer(MakeTar({File("a", "b")}));
  image.annotations = R"({"org.example.key":"value \u00e4","empty":""})";
  image.Finish("app", "1");
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  ASSERT_TRUE(Pull(registry.host() + "/app:1").ok());
  const std::map<std::string, std::string> expected = {{"org.example.key", "value \u00e4"}, {"empty", ""}};
  EXPECT_EQ((*service_->Find(registry.host() + "/app:1"))->annotations, expected);
  service_.reset();
  service_ = *NewImageService({.directory = root_});
  EXPECT_EQ(service_->List()->at(0).annotations, expected);
}

TEST_F(ImageServiceTest, AnnotationsThatAreNoneOrTooLargeAreRefused) {
  for (const auto& [annotations, words] : std::map<std::string, std::string>{
           {"[]", "annotations are not an object"},
           {R"({"a":1})", "an annotation of its manifest is not a string"},
           {Concat(R"({"a":")", std::string(300'000, 'x'), R"("})"), "more than 256 KiB"}}) {
    FakeImage image;
    image.AddLayer(MakeTar({File("a", "b")}));
    image.annotations = annotations;
    image.Finish("app", "1");
    ExpectFailure(image, absl::StatusCode::kInvalidArgument, words);
  }
}

TEST_F(ImageServiceTest, PinnedByNamePrefixOrId) {
  const FakeImage image = TwoLayers();
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  ASSERT_TRUE(Pull(registry.host() + "/app:1").ok());
  EXPECT_FALSE(service_->List()->at(0).pinned);
  for (const auto& [pattern, pinned] : std::map<std::string, bool>{{registry.host() + "/app:1", true},
                                                                   {registry.host() + "/app:2", false},
                                                                   {registry.host() + "/*", true},
                                                                   {registry.host() + "/b*", false},
                                                                   {image.config_digest, true}}) {
    service_.reset();
    service_ = *NewImageService({.directory = root_, .pinned = {pattern}});
    EXPECT_EQ(service_->List()->at(0).pinned, pinned) << pattern;
  }
  // Pinned against the kubelet's garbage collection, not against an explicit removal.
  EXPECT_TRUE(service_->Remove(kContext, registry.host() + "/app:1").ok());
  EXPECT_THAT(*service_->List(), IsEmpty());
  const auto malformed = NewImageService({.directory = root_ + "2", .pinned = {"::"}});
  EXPECT_EQ(malformed.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(malformed.status().message()), HasSubstr("::"));
}

TEST_F(ImageServiceTest, LayersAlreadyThereAreNotFetched) {
  const FakeImage image = TwoLayers();
  FakeImage other;
  other.AddLayer(MakeTar({File("a", "first"), File("b", "first")}));
  other.AddLayer(MakeTar({File("c", "third")}), "none");
  other.Finish("other", "1");
  FakeRegistry registry([&](const FakeRequest& request) {
    const FakeResponse response = image.Answer(request.target);
    return response.status == 200 ? response : other.Answer(request.target);
  });
  ASSERT_TRUE(Pull(registry.host() + "/app:1").ok());
  ASSERT_TRUE(Pull(registry.host() + "/app:1").ok());
  ASSERT_TRUE(Pull(registry.host() + "/other:1").ok());
  EXPECT_EQ(registry.Count(image.BlobTarget(0)), 1U);
  EXPECT_EQ(registry.Count(other.BlobTarget(0)), 0U);
  EXPECT_EQ(registry.Count(other.BlobTarget(1)), 1U);
  // The shared layer stays while one image has it.
  ASSERT_TRUE(service_->Remove(kContext, registry.host() + "/app:1").ok());
  EXPECT_EQ(BlobFiles(), 5U);
  // After a restart too.
  service_.reset();
  service_ = *NewImageService({.directory = root_});
  EXPECT_TRUE(service_->CollectGarbage(kContext).ok());
  EXPECT_EQ(BlobFiles(), 5U);
  EXPECT_TRUE(service_->Acquire(registry.host() + "/other:1").ok());
}

TEST_F(ImageServiceTest, ATagThatMovedPointsToTheNewImage) {
  FakeImage image = TwoLayers();
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  const std::string name = registry.host() + "/app:1";
  const std::string first = Pull(name)->id;
  image.config = R"("config":{"User":"7"})";
  image.Finish("app", "1");
  const auto second = Pull(name);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE(second->id, first);
  EXPECT_EQ((*service_->Find(name))->id, second->id);
  const auto old = service_->Find(first);
  ASSERT_TRUE(old->has_value());
  EXPECT_THAT((*old)->repository_tags, IsEmpty());
  EXPECT_EQ((*old)->repository_digests.size(), 1U);
}

TEST_F(ImageServiceTest, ALeaseKeepsTheFiles) {
  const FakeImage image = TwoLayers();
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  EXPECT_EQ(service_->Acquire(registry.host() + "/app:1").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(Pull(registry.host() + "/app:1").ok());
  auto lease = *service_->Acquire(registry.host() + "/app:1");
  auto second = *service_->Acquire(image.config_digest);
  EXPECT_EQ(lease->image().id, image.config_digest);
  ASSERT_EQ(lease->disk().size(), 3U);
  for (const DiskPart& part : lease->disk()) {
    EXPECT_EQ(part.length % 4096, 0U);
    EXPECT_EQ(std::filesystem::file_size(part.path), part.length);
  }
  const std::string disk = directory_.path() + "/disk";
  ASSERT_TRUE(testing::Concatenate(lease->disk(), disk).ok());
  const Status checked = testing::FsckAndExtract(disk, directory_.path() + "/extracted");
  EXPECT_TRUE(checked.ok()) << checked;
  EXPECT_FALSE(std::filesystem::exists(directory_.path() + "/extracted/a"));

  ASSERT_TRUE(service_->Remove(kContext, image.config_digest).ok());
  EXPECT_TRUE(service_->CollectGarbage(kContext).ok());
  EXPECT_EQ(BlobFiles(), 5U);
  lease.reset();
  EXPECT_EQ(BlobFiles(), 5U);
  second.reset();
  EXPECT_EQ(BlobFiles(), 0U);
}

TEST_F(ImageServiceTest, GarbageOfACrashIsCollected) {
  const FakeImage image = TwoLayers();
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  ASSERT_TRUE(Pull(registry.host() + "/app:1").ok());
  const std::string hex(64, 'e');
  for (const std::string file : {"ingest/1-1", "layers/junk"}) std::ofstream(root_ + "/" + file) << "x";
  std::ofstream(Concat(root_, "/layers/", hex)) << "x";
  std::ofstream(Concat(root_, "/layers/", hex, ".index")) << "x";
  std::ofstream(Concat(root_, "/images/", hex, ".erofs")) << "x";
  ASSERT_TRUE(service_->CollectGarbage(kContext).ok());
  EXPECT_EQ(BlobFiles(), 5U);
  EXPECT_EQ(testing::CountFiles(root_ + "/ingest"), 0U);
}

TEST_F(ImageServiceTest, TwoPullsShareALayer) {
  const FakeImage image = TwoLayers();
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future().share();
  std::promise<void> asked;
  FakeRegistry registry([&](const FakeRequest& request) {
    if (request.target == image.BlobTarget(0)) {
      asked.set_value();
      released.wait();
    }
    return image.Answer(request.target);
  });
  const std::string name = registry.host() + "/app:1";
  auto first = std::async(std::launch::async, [&] { return Pull(name); });
  asked.get_future().wait();
  std::promise<void> waiting;
  std::atomic<bool> told = false;
  auto second = std::async(std::launch::async, [&] {
    return service_->Pull(kContext, name, {}, [&](const PullProgress& progress) {
      const bool waits = progress.waiting_for.find("another pull") != std::string::npos;
      if (waits && !told.exchange(true)) waiting.set_value();
    });
  });
  waiting.get_future().wait();
  release.set_value();
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(second.get().ok());
  EXPECT_EQ(registry.Count(image.BlobTarget(0)), 1U);
}

TEST_F(ImageServiceTest, TheSecondPullGoesOnWhenTheFirstIsCancelled) {
  const FakeImage image = TwoLayers();
  std::promise<void> asked;
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future().share();
  std::atomic<int> times = 0;
  FakeRegistry registry([&](const FakeRequest& request) {
    if (request.target == image.BlobTarget(0) && times++ == 0) {
      asked.set_value();
      released.wait();
    }
    return image.Answer(request.target);
  });
  const std::string name = registry.host() + "/app:1";
  std::stop_source stop;
  auto first = std::async(std::launch::async,
                          [&] { return service_->Pull(kContext.WithStopToken(stop.get_token()), name, {}, nullptr); });
  asked.get_future().wait();
  auto second = std::async(std::launch::async, [&] { return Pull(name); });
  stop.request_stop();
  EXPECT_EQ(first.get().status().code(), absl::StatusCode::kCancelled);
  const auto pulled = second.get();
  EXPECT_TRUE(pulled.ok()) << pulled.status();
  release.set_value();
}

TEST_F(ImageServiceTest, ADeadlineEndsASilentServer) {
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future().share();
  FakeRegistry registry([&](const FakeRequest&) {
    released.wait();
    return FakeResponse{.status = 500};
  });
  const Context soon = kContext.WithTimeout(std::chrono::milliseconds(100));
  const auto pulled = service_->Pull(soon, registry.host() + "/app:1", {}, nullptr);
  EXPECT_EQ(pulled.status().code(), absl::StatusCode::kDeadlineExceeded) << pulled.status();
  release.set_value();
}

TEST_F(ImageServiceTest, ImagesWithoutLayersAndWithEmptyOnes) {
  FakeImage none;
  none.Finish("none", "1");
  FakeImage empty;
  empty.AddLayer(MakeTar({}));
  empty.AddLayer(MakeTar({File("a")}));
  empty.AddLayer(MakeTar({}));
  empty.Finish("empty", "1");
  FakeRegistry registry([&](const FakeRequest& request) {
    const FakeResponse response = none.Answer(request.target);
    return response.status == 200 ? response : empty.Answer(request.target);
  });
  for (const std::string name : {"/none:1", "/empty:1"}) {
    const auto pulled = Pull(registry.host() + name);
    ASSERT_TRUE(pulled.ok()) << pulled.status();
    EXPECT_GT(pulled->size_bytes, 0U);
    const auto lease = *service_->Acquire(registry.host() + name);
    const std::string disk = directory_.path() + "/disk";
    ASSERT_TRUE(testing::Concatenate(lease->disk(), disk).ok());
    const Status checked = testing::RunTool({"/usr/bin/fsck.erofs", disk}).status();
    EXPECT_TRUE(checked.ok()) << checked;
  }
}

TEST_F(ImageServiceTest, DamagedAndLyingImagesAreRefused) {
  FakeImage wrong_digest = TwoLayers();
  wrong_digest.answers[wrong_digest.BlobTarget(1)].body.back() ^= 1;
  ExpectFailure(wrong_digest, absl::StatusCode::kDataLoss, wrong_digest.layers[1].digest);

  FakeImage too_long = TwoLayers();
  too_long.answers[too_long.BlobTarget(0)].body += "x";
  ExpectFailure(too_long, absl::StatusCode::kDataLoss, "more than the expected");

  FakeImage wrong_diff_id;
  wrong_diff_id.AddLayer(MakeTar({File("a")}));
  wrong_diff_id.layers[0].diff_id = DigestOf("something else");
  wrong_diff_id.Finish("app", "1");
  ExpectFailure(wrong_diff_id, absl::StatusCode::kDataLoss, "the image's config says");

  FakeImage fewer = TwoLayers();
  fewer.manifest.replace(fewer.manifest.find(R"("layers":[)"), std::string::npos, R"("layers":[]})");
  fewer.answers["/v2/app/manifests/1"].body = fewer.manifest;
  ExpectFailure(fewer, absl::StatusCode::kInvalidArgument, "0 layers but 2 diff-ids");

  FakeImage traversal = TwoLayers();
  const std::string digest = traversal.layers[0].digest;
  std::string& manifest = traversal.answers["/v2/app/manifests/1"].body;
  manifest.replace(manifest.find(digest), digest.size(), "sha256:../../x");
  ExpectFailure(traversal, absl::StatusCode::kInvalidArgument, "sha256:../../x");

  FakeImage lying = TwoLayers();
  lying.answers["/v2/app/manifests/1"].headers = {"Content-Type: application/vnd.oci.image.index.v1+json"};
  ExpectFailure(lying, absl::StatusCode::kInvalidArgument, "media type");

  FakeImage tampered = TwoLayers();
  tampered.answers["/v2/app/manifests/1"].headers.push_back("Docker-Content-Digest: " + DigestOf("other"));
  ExpectFailure(tampered, absl::StatusCode::kDataLoss, DigestOf("other"));

  FakeImage no_tar;
  no_tar.AddLayer(std::string(1024, '\0') + "raw file system" + std::string(5000, 'e'));
  no_tar.Finish("app", "1");
  ExpectFailure(no_tar, absl::StatusCode::kInvalidArgument, "no tar");
}

TEST_F(ImageServiceTest, AnIndexLeadsToItsAmd64Image) {
  FakeImage image = TwoLayers();
  const auto index = [&](const std::string& architecture, const std::string& digest, std::size_t size) {
    return Concat(R"({"schemaVersion":2,"manifests":[{"digest":")", DigestOf("arm"),
                  R"(","size":3,"platform":{"os":"linux","architecture":"arm64"}},{"digest":")", digest, R"(","size":)",
                  size, R"(,"platform":{"os":"linux","architecture":")", architecture, R"("}}]})");
  };
  const std::vector<std::string> type = {"Content-Type: application/vnd.docker.distribution.manifest.list.v2+json"};
  const std::string good = index("amd64", image.manifest_digest, image.manifest.size());
  image.answers["/v2/app/manifests/all"] = {.headers = type, .body = good};
  image.answers["/v2/app/manifests/foreign"] = {.headers = type, .body = index("s390x", image.manifest_digest, 1)};
  image.answers["/v2/app/manifests/size"] = {.headers = type, .body = index("amd64", image.manifest_digest, 1)};
  // No document can contain its own digest; a chain of indexes is the nearest thing.
  std::string inner = good;
  for (int i = 0; i < 5; ++i) {
    const std::string digest = DigestOf(inner);
    image.answers["/v2/app/manifests/" + digest] = {.headers = type, .body = inner};
    inner = index("amd64", digest, inner.size());
  }
  image.answers["/v2/app/manifests/deep"] = {.headers = type, .body = inner};
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  const auto pulled = Pull(registry.host() + "/app:all");
  ASSERT_TRUE(pulled.ok()) << pulled.status();
  EXPECT_THAT(pulled->repository_digests, ElementsAre(Concat(registry.host(), "/app@", DigestOf(good))));
  EXPECT_THAT(std::string(Pull(registry.host() + "/app:foreign").status().message()), HasSubstr("linux/s390x"));
  EXPECT_EQ(Pull(registry.host() + "/app:size").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(Pull(registry.host() + "/app:deep").status().message()), HasSubstr("indexes within"));
}

}  // namespace
}  // namespace husk::images
