// CHA-03, as far as it is the images' disk: a pull that finds it full, at whichever write. The test has a small file
// system to itself, in a mount namespace of its own.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "agent/common/unique_fd.h"
#include "images/image_service.h"
#include "images/testing/archive.h"
#include "images/testing/disk_check.h"
#include "images/testing/fake_registry.h"
#include "images/text.h"

namespace husk::images {
namespace {

using testing::FakeImage;
using testing::FakeRegistry;
using testing::FakeRequest;
using testing::File;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeTar;

const Context kContext = Context::Background("test");
constexpr std::uint64_t kPage = 4096;

std::string RandomBytes(std::size_t count) {
  std::mt19937 generator(1);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same each time
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(generator());
  return bytes;
}

class DiskFullTest : public ::testing::Test {
 protected:
  // Threads made from here on, the pulls' and the registry's, are in the namespace too.
  static void SetUpTestSuite() {
    ASSERT_EQ(unshare(CLONE_NEWNS), 0) << std::generic_category().message(errno);
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0) << std::generic_category().message(errno);
  }
  void SetUp() override {
    ASSERT_EQ(mount("husk-test", directory_.path().c_str(), "tmpfs", 0, "size=8m"), 0)
        << std::generic_category().message(errno);
    auto opened = NewImageService({.directory = root_});
    ASSERT_TRUE(opened.ok()) << opened.status();
    service_ = *std::move(opened);
  }
  ~DiskFullTest() override {
    service_.reset();
    umount2(directory_.path().c_str(), MNT_DETACH);
  }

  [[nodiscard]] std::uint64_t Free() const {
    struct statvfs info{};
    EXPECT_EQ(statvfs(directory_.path().c_str(), &info), 0);
    return info.f_bavail * info.f_frsize;
  }
  // Leaves so many bytes.
  void Fill(std::uint64_t left) const {
    Empty();
    const UniqueFd file(open(filler_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(file.valid());
    const std::uint64_t free = Free();
    ASSERT_GE(free, left);
    if (free == left) return;
    ASSERT_EQ(posix_fallocate(file.get(), 0, static_cast<off_t>(free - left)), 0);
  }
  void Empty() const { std::filesystem::remove(filler_); }

  [[nodiscard]] std::vector<std::string> Files() const {
    std::vector<std::string> files;
    for (const char* folder : {"layers", "images", "ingest"}) {
      for (const auto& file : std::filesystem::directory_iterator(root_ + "/" + folder)) files.push_back(file.path());
    }
    return files;
  }
  void ExpectDiskFull(const Status& status) const {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(root_));
  }

  const testing::TemporaryDirectory directory_;
  const std::string root_ = directory_.path() + "/store";
  const std::string filler_ = directory_.path() + "/filler";
  std::unique_ptr<ImageService> service_;
};

TEST_F(DiskFullTest, Cha03ALayerThatDoesNotFit) {
  FakeImage image;
  image.AddLayer(MakeTar({File("small")}));
  image.AddLayer(MakeTar({File("large", RandomBytes(std::size_t{12} << 20))}), "none");
  image.Finish("app", "1");
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  const std::string name = registry.host() + "/app:1";
  for (int i = 0; i < 2; ++i) {
    const auto pulled = service_->Pull(kContext, name, {}, nullptr);
    ExpectDiskFull(pulled.status());
    EXPECT_THAT(std::string(pulled.status().message()), HasSubstr(image.layers[1].digest));
    EXPECT_THAT(*service_->List(), IsEmpty());
    EXPECT_THAT(Files(), IsEmpty());
  }
  ASSERT_EQ(mount(nullptr, directory_.path().c_str(), nullptr, MS_REMOUNT, "size=64m"), 0);
  const auto pulled = service_->Pull(kContext, name, {}, nullptr);
  EXPECT_TRUE(pulled.ok()) << pulled.status();
}

TEST_F(DiskFullTest, Cha03FullAtAnyWrite) {
  FakeImage image;
  image.AddLayer(MakeTar({File("a", RandomBytes(20'000))}));
  // A config that takes pages in the index.
  image.config = Concat(R"("config":{"Labels":{"l":")", std::string(30'000, 'l'), R"("}})");
  image.Finish("app", "1");
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  const std::string name = registry.host() + "/app:1";
  int refused = 0;
  bool enough = false;
  for (std::uint64_t pages = 0; pages < 200 && !enough; ++pages) {
    Fill(pages * kPage);
    const auto pulled = service_->Pull(kContext, name, {}, nullptr);
    enough = pulled.ok();
    if (enough) continue;
    ++refused;
    ExpectDiskFull(pulled.status());
    const auto listed = service_->List();
    ASSERT_TRUE(listed.ok()) << listed.status();
    EXPECT_THAT(*listed, IsEmpty());
    EXPECT_THAT(Files(), IsEmpty()) << pages;
  }
  EXPECT_TRUE(enough);
  EXPECT_GT(refused, 8) << "a layer, its index, the metadata and the images' index each want some pages";
  // What was written last is whole, also for who opens it anew.
  Empty();
  service_.reset();
  service_ = *NewImageService({.directory = root_});
  EXPECT_TRUE(service_->CollectGarbage(kContext).ok());
  EXPECT_TRUE(service_->Acquire(name).ok());
  EXPECT_TRUE(service_->Remove(kContext, name).ok());
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(DiskFullTest, Cha03AFullDiskCanBeCleared) {
  FakeImage image;
  image.AddLayer(MakeTar({File("a", RandomBytes(1'000'000))}));
  image.Finish("app", "1");
  FakeRegistry registry([&](const FakeRequest& request) { return image.Answer(request.target); });
  const std::string name = registry.host() + "/app:1";
  for (const bool reopened : {false, true}) {
    Empty();
    ASSERT_TRUE(service_->Pull(kContext, name, {}, nullptr).ok());
    if (reopened) service_.reset();
    Fill(0);
    if (reopened) {
      auto opened = NewImageService({.directory = root_});
      ASSERT_TRUE(opened.ok()) << opened.status();
      service_ = *std::move(opened);
    }
    const Status removed = service_->Remove(kContext, name);
    EXPECT_TRUE(removed.ok()) << "removing images is how a full disk becomes empty again: " << removed;
    EXPECT_THAT(Files(), IsEmpty());
    EXPECT_GT(Free(), 900'000U);
  }
}

}  // namespace
}  // namespace husk::images
