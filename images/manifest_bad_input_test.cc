// Images whose documents lie or are made to do harm: IMG-12 to IMG-14 of the catalogue of bad inputs, and what CFG-01
// says of a config's User. Each is refused with an error that names the fault and is fit to print, nothing of it stays
// in the store, and the next pull works.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "images/digest.h"
#include "images/image_service.h"
#include "images/limits.h"
#include "images/testing/archive.h"
#include "images/testing/disk_check.h"
#include "images/testing/fake_registry.h"
#include "images/text.h"

namespace husk::images {
namespace {

using testing::FakeImage;
using testing::FakeRegistry;
using testing::FakeRequest;
using testing::FakeResponse;
using testing::File;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeTar;

const Context kContext = Context::Background("test");
constexpr char kTagTarget[] = "/v2/app/manifests/1";
constexpr char kIndexType[] = "application/vnd.oci.image.index.v1+json";
constexpr char kManifestType[] = "application/vnd.oci.image.manifest.v1+json";
constexpr char kDockerManifestType[] = "application/vnd.docker.distribution.manifest.v2+json";
constexpr std::uint64_t kGibibyte = std::uint64_t{1} << 30;

FakeImage TwoLayers() {
  FakeImage image;
  image.AddLayer(MakeTar({File("a", "first")}));
  image.AddLayer(MakeTar({File("b", "second")}));
  image.Finish("app", "1");
  return image;
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// TwoLayers with another text in place of the first such one in the manifest.
FakeImage WithManifest(const std::string& from, const std::string& to) {
  FakeImage image = TwoLayers();
  image.answers[kTagTarget].body = Replaced(image.manifest, from, to);
  return image;
}

// An image of one layer with this config, and a manifest that names it.
FakeImage WithConfig(const std::string& document) {
  FakeImage image;
  image.AddLayer(MakeTar({File("a", "first")}));
  image.Finish("app", "1");
  const std::string good = image.answers[Concat("/v2/app/blobs/", image.config_digest)].body;
  const std::string digest = DigestOf(document);
  std::string manifest = Replaced(image.manifest, image.config_digest, digest);
  manifest = Replaced(manifest, Concat(R"("size":)", good.size()), Concat(R"("size":)", document.size()));
  image.answers[Concat("/v2/app/blobs/", digest)] = {.body = document};
  image.answers[kTagTarget].body = manifest;
  return image;
}

std::string ConfigOf(const FakeImage& image, const std::string& run) {
  return Concat(R"({"os":"linux","architecture":"amd64","config":{)", run, R"(},"rootfs":{"diff_ids":[")",
                image.layers[0].diff_id, R"("]}})");
}

// What the tag leads to is this document.
FakeImage WithIndex(const std::string& index, const std::string& type = kIndexType) {
  FakeImage image = TwoLayers();
  image.answers[kTagTarget] = {.headers = {Concat("Content-Type: ", type)}, .body = index};
  return image;
}

std::string IndexOf(const std::string& digest, std::size_t size, const std::string& more = "") {
  return Concat(R"({"schemaVersion":2,"manifests":[{"digest":")", digest, R"(","size":)", size, more,
                R"(,"platform":{"os":"linux","architecture":"amd64"}}]})");
}

class ManifestBadInputTest : public ::testing::Test {
 protected:
  ManifestBadInputTest() : service_(*NewImageService({.directory = root_})) {
    good_.AddLayer(MakeTar({File("good")}));
    good_.Finish("good", "1");
  }

  std::size_t Files() const {
    std::size_t count = 0;
    for (const char* folder : {"layers", "images", "ingest"}) count += testing::CountFiles(root_ + "/" + folder);
    return count;
  }

  // Whatever else the registry has, it has this.
  FakeRegistry::Handler WithGood(FakeRegistry::Handler other) const {
    return [this, other = std::move(other)](const FakeRequest& request) {
      return request.target.starts_with("/v2/good/") ? good_.Answer(request.target) : other(request);
    };
  }

  void ExpectRefused(FakeRegistry& registry, const std::string& reference, absl::StatusCode code,
                     const std::string& words) {
    const std::string name = registry.host() + reference;
    const auto pulled = service_->Pull(kContext, name, {}, nullptr);
    EXPECT_EQ(pulled.status().code(), code) << pulled.status();
    const std::string message(pulled.status().message());
    EXPECT_THAT(message, HasSubstr(words));
    EXPECT_THAT(message, HasSubstr(name));
    EXPECT_LT(message.size(), 2000U);
    EXPECT_TRUE(std::all_of(message.begin(), message.end(), [](char c) { return c >= ' ' && c <= '~'; })) << message;
    ExpectNothingThere();
    const auto next = service_->Pull(kContext, registry.host() + "/good:1", {}, nullptr);
    EXPECT_TRUE(next.ok()) << next.status();
    EXPECT_EQ(service_->List()->size(), 1U);
    EXPECT_TRUE(service_->Remove(kContext, registry.host() + "/good:1").ok());
    ExpectNothingThere();
  }
  void ExpectRefused(const FakeImage& image, absl::StatusCode code, const std::string& words) {
    FakeRegistry registry(WithGood([&](const FakeRequest& request) { return image.Answer(request.target); }));
    ExpectRefused(registry, "/app:1", code, words);
  }
  void ExpectMalformed(const FakeImage& image, const std::string& words) {
    ExpectRefused(image, absl::StatusCode::kInvalidArgument, words);
  }
  void ExpectNothingThere() {
    EXPECT_THAT(*service_->List(), IsEmpty());
    EXPECT_EQ(Files(), 0U);
  }
  // It is pulled, and its disk is sound.
  void ExpectAccepted(const FakeImage& image) {
    FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
    const auto pulled = service_->Pull(kContext, registry.host() + "/app:1", {}, nullptr);
    ASSERT_TRUE(pulled.ok()) << pulled.status();
    EXPECT_GT(pulled->size_bytes, 0U);
    {
      const auto lease = *service_->Acquire(registry.host() + "/app:1");
      const std::string disk = directory_.path() + "/disk";
      ASSERT_TRUE(testing::Concatenate(lease->disk(), disk).ok());
      const Status checked = testing::RunTool({"/usr/bin/fsck.erofs", disk}).status();
      EXPECT_TRUE(checked.ok()) << checked;
    }
    EXPECT_TRUE(service_->Remove(kContext, registry.host() + "/app:1").ok());
    ExpectNothingThere();
  }

  const testing::TemporaryDirectory directory_;
  const std::string root_ = directory_.path() + "/images";
  std::unique_ptr<ImageService> service_;
  FakeImage good_;
};

TEST_F(ManifestBadInputTest, Img12NoLayerAtAll) {
  // An image of a config alone is an empty root, however its manifest says so.
  FakeImage none;
  none.Finish("app", "1");
  ExpectAccepted(none);
  for (const char* layers : {R"("layers":null)", R"("other":[])"}) {
    FakeImage without = none;
    without.answers[kTagTarget].body = Replaced(none.manifest, R"("layers":[])", layers);
    ExpectAccepted(without);
  }
  ExpectMalformed(WithManifest(R"("layers":[)", R"("layers":{},"other":[)"), "layers are not a list");
  ExpectMalformed(WithManifest(R"("layers":[)", R"("layers":[[],)"), "digest \"\"");
}

TEST_F(ManifestBadInputTest, Img12MoreOrFewerLayersThanDiffIds) {
  const FakeImage two = TwoLayers();
  const std::string first = two.manifest.substr(two.manifest.find(R"({"mediaType")"),
                                                two.manifest.find("},{") + 2 - two.manifest.find(R"({"mediaType")"));
  ExpectMalformed(WithManifest(first, ""), "1 layers but 2 diff-ids");
  ExpectMalformed(WithManifest(first, first + first), "3 layers but 2 diff-ids");
  ExpectMalformed(WithManifest(R"("layers":[)", R"("other":[)"), "0 layers but 2 diff-ids");
  std::string many;
  for (int i = 0; i < 511; ++i) many += first;
  ExpectMalformed(WithManifest(first, many + first), "more than 512 layers");
  for (const char* rootfs : {R"({"os":"linux"})", R"({"rootfs":{}})", R"({"rootfs":{"diff_ids":[]}})", "{}"}) {
    ExpectMalformed(WithConfig(rootfs), "1 layers but 0 diff-ids");
  }
  ExpectMalformed(WithConfig(R"({"rootfs":{"diff_ids":"x"}})"), "diff_ids is not a list");
  ExpectMalformed(WithConfig(R"({"rootfs":{"diff_ids":[7]}})"), "diff_ids is not a list of strings");
  // The right number in the wrong order.
  FakeImage swapped = TwoLayers();
  std::swap(swapped.layers[0].diff_id, swapped.layers[1].diff_id);
  swapped.Finish("app", "1");
  ExpectRefused(swapped, absl::StatusCode::kDataLoss, "but the image's config says");
}

TEST_F(ManifestBadInputTest, Img12EmptyLayers) {
  for (const std::string compression : {"gzip", "zstd", "none"}) {
    FakeImage image;
    image.AddLayer(MakeTar({}), compression);
    image.Finish("app", "1");
    ExpectAccepted(image);
    // The same layer again and again.
    image.AddLayer(MakeTar({}), compression);
    image.AddLayer(MakeTar({File("a")}), compression);
    image.AddLayer(MakeTar({}), compression);
    image.Finish("app", "1");
    ExpectAccepted(image);
    // Not even an end of the archive.
    FakeImage nothing;
    nothing.AddLayer("", compression);
    nothing.Finish("app", "1");
    ExpectAccepted(nothing);
  }
}

const std::vector<std::string>& FalseDigests() {
  static const std::vector<std::string> digests = {
      "sha256:../../x",
      "sha256:" + std::string(61, '0') + "/..",
      "sha256:" + std::string(63, '0'),
      "sha256:" + std::string(65, '0'),
      "sha256:" + std::string(64, 'A'),
      "sha256:" + std::string(63, '0') + "\\u0000",
      "SHA256:" + std::string(64, '0'),
      "sha512:" + std::string(128, '0'),
      "md5:" + std::string(32, '0'),
      std::string(64, '0'),
      "sha256:%2e%2e%2f" + std::string(55, '0'),
      "sha256:\\n\\u001b[2Jlevel=info",
      "",
      std::string(100'000, 'd'),
  };
  return digests;
}

// Such a digest as an error shows it, or its beginning.
std::string Shown(const std::string& digest) {
  constexpr std::size_t kBeginning = 100;
  return Concat("\"", digest.substr(0, std::min(digest.find('\\'), kBeginning)));
}

TEST_F(ManifestBadInputTest, Img13DigestsThatAreNone) {
  const FakeImage good = TwoLayers();
  for (const std::string& digest : FalseDigests()) {
    ExpectMalformed(WithManifest(good.config_digest, digest), Concat("the config: the digest ", Shown(digest)));
    ExpectMalformed(WithManifest(good.layers[1].digest, digest), Concat("a layer: the digest ", Shown(digest)));
    ExpectMalformed(WithIndex(IndexOf(digest, 1)), Concat("a manifest in its index: the digest ", Shown(digest)));
    ExpectMalformed(WithConfig(Concat(R"({"rootfs":{"diff_ids":[")", digest, R"("]}})")),
                    Concat("the diff-id ", Shown(digest)));
  }
  ExpectMalformed(WithManifest(Concat("\"", good.config_digest, "\""), "7"), "digest is not a string");
  ExpectMalformed(WithManifest(R"("digest")", R"("gist")"), "the digest \"\"");
  ExpectMalformed(WithManifest(R"("config":{)", R"("config":[],"other":{)"), "the digest \"\"");
  // A header that is no digest counts for nothing: the document's own is taken.
  for (const std::string header : {"sha256:../../x", "x", ""}) {
    FakeImage image = TwoLayers();
    image.answers[kTagTarget].headers.push_back("Docker-Content-Digest: " + header);
    ExpectAccepted(image);
  }
}

TEST_F(ManifestBadInputTest, Img13WrongDigests) {
  const FakeImage good = TwoLayers();
  for (const std::string& target :
       {good.BlobTarget(0), good.BlobTarget(1), Concat("/v2/app/blobs/", good.config_digest)}) {
    FakeImage image = good;
    image.answers[target].body.front() ^= 1;
    ExpectRefused(image, absl::StatusCode::kDataLoss, target.substr(target.rfind('/') + 1));
  }
  FakeImage announced = good;
  announced.answers[kTagTarget].headers.push_back("Docker-Content-Digest: " + DigestOf("other"));
  ExpectRefused(announced, absl::StatusCode::kDataLoss, DigestOf("other"));
  // Asked for by a digest, the registry has something else there, whatever it calls it.
  const std::string asked = DigestOf("asked for");
  FakeImage other = good;
  other.answers["/v2/app/manifests/" + asked] = good.answers.at(kTagTarget);
  other.answers["/v2/app/manifests/" + asked].headers.push_back("Docker-Content-Digest: " + asked);
  FakeRegistry registry(WithGood([&](const FakeRequest& request) { return other.Answer(request.target); }));
  ExpectRefused(registry, "/app@" + asked, absl::StatusCode::kDataLoss, asked);
  // Or an index leads there.
  other.answers[kTagTarget] = {.headers = {Concat("Content-Type: ", kIndexType)},
                               .body = IndexOf(asked, good.manifest.size())};
  ExpectRefused(registry, "/app:1", absl::StatusCode::kDataLoss, asked);
}

TEST_F(ManifestBadInputTest, Img13WrongSizes) {
  const FakeImage good = TwoLayers();
  const std::string config_size =
      Concat(R"("size":)", good.answers.at("/v2/app/blobs/" + good.config_digest).body.size());
  const std::string layer_size = Concat(R"("size":)", good.layers[0].compressed.size());
  for (const std::string size : {"-1", "1.5", "1e3", "18446744073709551616", "9223372036854775808", "\"12\"", "[]",
                                 "true", "{\"a\":\"\\u001b\"}"}) {
    const std::string shown = size.substr(0, size.find('\\'));
    for (const std::string& place : {config_size, layer_size}) {
      const std::string text = size == "1e3"                    ? "1000.0"
                               : size == "18446744073709551616" ? "1.8446744073709552e+19"
                                                                : shown;
      ExpectMalformed(WithManifest(place, R"("size":)" + size), Concat("the size ", Printable(text)));
    }
  }
  ExpectMalformed(WithManifest(R"("size":)", R"("sizes":)"), "the config: no size");
  ExpectMalformed(WithManifest(layer_size, R"("size":null)"), "a layer: no size");
  // Smaller than what comes.
  for (const std::string size : {"0", "1"}) {
    ExpectRefused(WithManifest(config_size, R"("size":)" + size), absl::StatusCode::kDataLoss, good.config_digest);
    ExpectRefused(WithManifest(layer_size, R"("size":)" + size), absl::StatusCode::kDataLoss, good.layers[0].digest);
  }
  for (const std::size_t size : {std::size_t{0}, good.manifest.size() - 1, good.manifest.size() + 1}) {
    ExpectRefused(WithIndex(IndexOf(good.manifest_digest, size)), absl::StatusCode::kDataLoss, good.manifest_digest);
  }
}

TEST_F(ManifestBadInputTest, Img13ShortBodies) {
  const FakeImage good = TwoLayers();
  // The server says itself that there is no more.
  const std::size_t size = good.layers[0].compressed.size();
  ExpectRefused(WithManifest(Concat(R"("size":)", size), Concat(R"("size":)", size + 1)), absl::StatusCode::kDataLoss,
                good.layers[0].digest);
  // The connection ends before the length that it announced.
  FakeImage cut = good;
  cut.answers[Concat("/v2/app/blobs/", good.config_digest)].cut_at = 10;
  ExpectRefused(cut, absl::StatusCode::kUnavailable, good.config_digest);
  // An end that looks like one: no length is announced, and the digest is right but for what is missing.
  FakeImage half = good;
  half.answers[kTagTarget].body.resize(good.manifest.size() / 2);
  ExpectMalformed(half, "is not a JSON object");
  half.answers[kTagTarget].body.clear();
  ExpectMalformed(half, "is not a JSON object");
}

TEST_F(ManifestBadInputTest, Img13MediaTypesThatLie) {
  const FakeImage good = TwoLayers();
  FakeImage called = good;
  called.answers[kTagTarget].headers = {Concat("Content-Type: ", kIndexType)};
  ExpectMalformed(called, Concat("not what its media type says: ", kIndexType));
  ExpectMalformed(WithIndex(IndexOf(good.manifest_digest, good.manifest.size()), kManifestType),
                  Concat("not what its media type says: ", kManifestType));
  const auto says = [](const std::string& type) {
    return WithManifest(R"({"schemaVersion":2,)", Concat(R"({"schemaVersion":2,"mediaType":")", type, R"(",)"));
  };
  ExpectMalformed(says(kDockerManifestType),
                  Concat("announced as ", kManifestType, ", but says of itself ", kDockerManifestType));
  ExpectMalformed(says(kIndexType), Concat("but says of itself ", kIndexType));
  FakeImage itself = says(kIndexType);
  itself.answers[kTagTarget].headers = {"Content-Type: application/json"};
  ExpectMalformed(itself, "not what its media type says");
  itself = says("text/html\\u001b[2J");
  itself.answers[kTagTarget].headers = {"Content-Type: application/json"};
  ExpectMalformed(itself, "a manifest of unknown media type text/html");
  ExpectMalformed(WithManifest(R"("layers":[)", R"("manifests":[],"layers":[)"), "neither an index nor");
  ExpectMalformed(WithManifest(R"({"schemaVersion":2,)", R"({"schemaVersion":1,)"), "schema 1");
  ExpectMalformed(WithIndex("{}"), "neither an index nor");
  ExpectMalformed(WithIndex("<html>not found</html>", "text/html"), "is not a JSON object");
  // An index that describes its manifests falsely.
  for (const auto& [type, words] : std::vector<std::pair<std::string, std::string>>{
           {kIndexType, "not what its media type says"},
           {"application/vnd.docker.distribution.manifest.list.v2+json", "not what its media type says"}}) {
    ExpectMalformed(
        WithIndex(IndexOf(good.manifest_digest, good.manifest.size(), Concat(R"(,"mediaType":")", type, "\""))), words);
  }
  // Layers: the name of a compression is a hint, for the bytes tell; any other kind of blob is refused.
  const std::string tar = R"("mediaType":"application/vnd.oci.image.layer.v1.tar")";
  ExpectAccepted(WithManifest(tar, R"("mediaType":"application/vnd.oci.image.layer.v1.tar+zstd")"));
  for (const std::string type :
       {"application/vnd.oci.image.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+encrypted", "x"}) {
    ExpectMalformed(WithManifest(tar, Concat(R"("mediaType":")", type, "\"")),
                    Concat(good.layers[0].digest, " has the unknown media type ", type));
  }
}

TEST_F(ManifestBadInputTest, Img13IndexesThatContainThemselves) {
  // No document can hold its own digest: the registry has to lie about it.
  const std::string digest = DigestOf("an index");
  const std::string index = IndexOf(digest, IndexOf(digest, 100).size());
  FakeImage self = WithIndex(index);
  self.answers["/v2/app/manifests/" + digest] = self.answers[kTagTarget];
  ExpectRefused(self, absl::StatusCode::kDataLoss, digest);
  // Or to be long, though honest.
  FakeImage chain = TwoLayers();
  std::string inner = IndexOf(chain.manifest_digest, chain.manifest.size());
  for (int i = 0; i < 10; ++i) {
    chain.answers["/v2/app/manifests/" + DigestOf(inner)] = {.headers = {Concat("Content-Type: ", kIndexType)},
                                                             .body = inner};
    inner = IndexOf(DigestOf(inner), inner.size());
  }
  chain.answers[kTagTarget] = {.headers = {Concat("Content-Type: ", kIndexType)}, .body = inner};
  FakeRegistry registry(WithGood([&](const FakeRequest& request) { return chain.Answer(request.target); }));
  ExpectRefused(registry, "/app:1", absl::StatusCode::kInvalidArgument, "indexes within indexes");
  EXPECT_LE(registry.requests().size(), 10U) << "and that is found out soon";
  // An index of more manifests than there are platforms.
  std::string wide = R"({"manifests":[{})";
  for (int i = 0; i < 10'000; ++i) wide += ",{}";
  ExpectMalformed(WithIndex(wide + "]}"), "no list of manifests");
  ExpectMalformed(WithIndex(R"({"manifests":{}})"), "no list of manifests");
}

// --- IMG-14

// Answers one target with a body that goes on for a gibibyte, with its length announced or not.
class Flood {
 public:
  Flood(std::string target, bool announced) : target_(std::move(target)) {
    response_ = {
        .headers = {Concat("Content-Type: ", kManifestType)}, .body = std::string(1 << 20, ' '), .endless = true};
    if (announced) response_.headers.push_back(Concat("Content-Length: ", kGibibyte));
  }
  FakeRegistry::Handler Before(const FakeImage& image) const {
    return [this, &image](const FakeRequest& request) {
      return request.target == target_ ? response_ : image.Answer(request.target);
    };
  }

 private:
  const std::string target_;
  FakeResponse response_;
};

// What is sent beyond a limit waits in the sockets; it is far less than what was announced.
constexpr std::uint64_t kTaken = std::uint64_t{64} << 20;

TEST_F(ManifestBadInputTest, Img14AManifestOfAGibibyte) {
  const FakeImage good = TwoLayers();
  for (const bool announced : {true, false}) {
    const Flood flood(kTagTarget, announced);
    FakeRegistry registry(WithGood(flood.Before(good)));
    ExpectRefused(registry, "/app:1", absl::StatusCode::kInvalidArgument, "the manifest is larger than 4 MiB");
    EXPECT_EQ(registry.Count(kTagTarget), 1U);
    EXPECT_LT(registry.body_bytes(), kTaken);
  }
  // Below an index, whatever that says of the size.
  for (const std::uint64_t size : {kGibibyte, std::uint64_t{100}}) {
    const Flood flood("/v2/app/manifests/" + good.manifest_digest, true);
    const FakeImage index = WithIndex(IndexOf(good.manifest_digest, size));
    FakeRegistry registry(WithGood(flood.Before(index)));
    ExpectRefused(registry, "/app:1", absl::StatusCode::kInvalidArgument, "the manifest is larger than 4 MiB");
    EXPECT_LT(registry.body_bytes(), kTaken);
  }
}

TEST_F(ManifestBadInputTest, Img14AConfigOfAGibibyte) {
  const FakeImage good = TwoLayers();
  const std::string target = "/v2/app/blobs/" + good.config_digest;
  const std::string size = Concat(R"("size":)", good.answers.at(target).body.size());
  // One that says so is not even asked for.
  FakeImage honest = WithManifest(size, Concat(R"("size":)", kGibibyte));
  FakeRegistry asked(WithGood([&](const FakeRequest& request) { return honest.Answer(request.target); }));
  ExpectRefused(asked, "/app:1", absl::StatusCode::kInvalidArgument,
                Concat("blob ", good.config_digest, " has 1073741824 bytes, more than the 8388608 allowed"));
  EXPECT_EQ(asked.Count(target), 0U);
  // One that doesn't is cut where its size ends.
  for (const bool announced : {true, false}) {
    const Flood flood(target, announced);
    const FakeImage largest = WithManifest(size, R"("size":8388608)");
    FakeRegistry registry(WithGood(flood.Before(largest)));
    ExpectRefused(registry, "/app:1", absl::StatusCode::kDataLoss, "more than the expected 8388608 bytes");
    EXPECT_EQ(registry.Count(target), 1U);
    EXPECT_LT(registry.body_bytes(), kTaken);
  }
}

std::string Nested(const std::string& opening, const std::string& closing, std::size_t depth) {
  std::string text;
  for (std::size_t i = 0; i < depth; ++i) text += opening;
  text += "0";
  for (std::size_t i = 0; i < depth; ++i) text += closing;
  return text;
}

TEST_F(ManifestBadInputTest, Img14JsonAHundredThousandDeep) {
  constexpr std::size_t kDeep = 100'000;
  const FakeImage good = TwoLayers();
  for (const std::string& deep : {Nested("[", "]", kDeep), Nested(R"({"a":)", "}", kDeep),
                                  Nested(R"([{"layers":)", "}]", kDeep), std::string(kDeep, '[')}) {
    const std::string member = Concat(R"("deep":)", deep, ",");
    ExpectMalformed(WithManifest(R"("config":)", member + R"("config":)"), "its manifest nests deeper than 64");
    ExpectMalformed(WithIndex(Concat("{", member, IndexOf(good.manifest_digest, 1).substr(1))),
                    "its manifest nests deeper than 64");
    ExpectMalformed(WithConfig(Concat("{", member, R"("rootfs":{}})")), "its config nests deeper than 64");
    ExpectMalformed(WithIndex(deep), "nests deeper than 64");
  }
  // The deepest that is allowed: it is within the document's own object.
  constexpr std::size_t kInside = kMaximumJsonDepth - 1;
  ExpectAccepted(WithManifest(R"("config":)", Concat(R"("deep":)", Nested("[", "]", kInside), R"(,"config":)")));
  ExpectMalformed(WithManifest(R"("config":)", Concat(R"("deep":)", Nested("[", "]", kInside + 1), R"(,"config":)")),
                  "nests deeper than 64");
}

TEST_F(ManifestBadInputTest, Img14JsonOfManyValues) {
  const auto many = [](const std::string& value, std::size_t count) {
    std::string list = Concat(R"("many":[)", value);
    for (std::size_t i = 1; i < count; ++i) list += "," + value;
    return list + "],";
  };
  // As many as fit into the bytes that are allowed; a moment's work, and little memory.
  constexpr std::size_t kFit = 1'300'000;
  const FakeImage good = TwoLayers();
  for (const std::string value : {"{}", "[]", "1"}) {
    ExpectMalformed(WithManifest(R"("config":)", many(value, kFit) + R"("config":)"),
                    "its manifest has more than 262144 values");
    ExpectMalformed(WithIndex(Concat("{", many(value, kFit), IndexOf(good.manifest_digest, 1).substr(1))),
                    "its manifest has more than 262144 values");
    ExpectMalformed(WithConfig(Concat("{", many(value, kFit), R"("rootfs":{}})")),
                    "its config has more than 262144 values");
    ExpectAccepted(WithManifest(R"("config":)", many(value, kMaximumJsonValues - 100) + R"("config":)"));
  }
}

TEST_F(ManifestBadInputTest, Img14RepeatedKeys) {
  const FakeImage good = TwoLayers();
  const std::string digest = Concat(R"("digest":")", good.config_digest, "\"");
  struct Case {
    std::string from;
    std::string to;
    std::string key;
  };
  for (const auto& [from, to, key] :
       std::vector<Case>{{R"("layers":[)", R"("layers":[],"layers":[)", "layers"},
                         {R"("config":)", R"("config":null,"config":)", "config"},
                         {R"("config":)", R"("\u0063onfig":{},"config":)", "config"},
                         {digest, Concat(digest, ",", digest), "digest"},
                         {R"("annotations":{)", R"("annotations":{"a":"1","b":"2","a":"1")", "a"},
                         {R"("config":)", R"("deep":[{"x":{"y":0,"z":0,"y":1}}],"config":)", "y"},
                         {R"("config":)", R"("":0,"":1,"config":)", ""},
                         {R"("config":)", R"("\u001b[2J":0,"\u001b[2J":1,"config":)", "\\x1b[2J"}}) {
    ExpectMalformed(WithManifest(from, to), Concat("its manifest has the key \"", key, "\" twice"));
  }
  const std::string long_key(100'000, 'k');
  ExpectMalformed(WithManifest(R"("config":)", Concat("\"", long_key, "\":0,\"", long_key, R"(":0,"config":)")),
                  "kkk...\" twice");
  ExpectMalformed(WithIndex(Concat(R"({"manifests":[],)", IndexOf(good.manifest_digest, 1).substr(1))),
                  "its manifest has the key \"manifests\" twice");
  const std::string twice = ConfigOf(good, R"("User":"1000","User":"0")");
  ExpectMalformed(WithConfig(twice), "its config has the key \"User\" twice");
  ExpectMalformed(WithConfig(R"({"rootfs":{"diff_ids":[]},"rootfs":{}})"), "its config has the key \"rootfs\" twice");
  // The same key in objects of their own, one after the other or within each other, is none of that.
  ExpectAccepted(WithManifest(R"("config":)", R"("x":[{"a":0},{"a":0},{"a":{"a":0}}],"config":)"));
}

TEST_F(ManifestBadInputTest, Img14WhatIsNoJson) {
  const FakeImage good = TwoLayers();
  for (const std::string& text :
       {std::string("\xef\xbb\xbf"), std::string("[]"), std::string("null"), std::string("\"x\""), std::string("1"),
        good.manifest + "x", good.manifest + good.manifest, Replaced(good.manifest, "2", "NaN"),
        Replaced(good.manifest, R"("annotations":{)", "\"annotations\":{\"a\":\"\xff\""),
        Replaced(good.manifest, R"("annotations":{)", R"("annotations":{"a":"\ud800")"),
        Replaced(good.manifest, R"("annotations":{)", R"("annotations":{"a":1e999)"), std::string(1000, '\0')}) {
    ExpectMalformed(WithIndex(text, kManifestType), "its manifest is not a JSON object");
    ExpectMalformed(WithConfig(text), "its config is not a JSON object");
  }
}

// --- CFG-01: the guest has the rest, which knows the image's users

TEST_F(ManifestBadInputTest, Cfg01UsersLongerThanAnyName) {
  const FakeImage good = TwoLayers();
  const auto with_user = [&](const std::string& user) {
    return WithConfig(ConfigOf(good, Concat(R"("User":")", user, "\"")));
  };
  const std::string longest(kMaximumUserName, 'u');
  ExpectAccepted(with_user(longest + ":" + longest));
  for (const std::string& user : {longest + "u", longest + "u:g", "u:" + longest + "g", std::string(5'000'000, 'u'),
                                  "u:" + std::string(5'000'000, '9')}) {
    ExpectMalformed(with_user(user), Concat("its User \"", user.substr(0, 100)));
    ExpectMalformed(with_user(user), Concat(user.size(), " bytes"));
  }
  ExpectMalformed(WithConfig(ConfigOf(good, R"("User":0)")), "User is not a string");
  // What fits is told as it is: the kubelet, and the guest, judge it.
  for (const std::string user : {"-1", "2147483648", "4294967297", "nobody-knows", "a:b:c"})
    ExpectAccepted(with_user(user));
}

}  // namespace
}  // namespace husk::images
