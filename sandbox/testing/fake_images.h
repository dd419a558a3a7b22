// An ImageService that has what a test puts into it, and counts its leases.
#ifndef HUSK_SANDBOX_TESTING_FAKE_IMAGES_H_
#define HUSK_SANDBOX_TESTING_FAKE_IMAGES_H_

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/common/mutex.h"
#include "images/image_service.h"

namespace husk::sandbox {

// Thread safe.
class FakeImages final : public images::ImageService {
 public:
  // Found by `name` and by its id, "sha256:<name>".
  void Add(const std::string& name, images::ImageRunConfig run) {
    images::Image image{.id = "sha256:" + name,
                        .repository_tags = {name},
                        .repository_digests = {"host/" + name + "@sha256:1"},
                        .size_bytes = 4096,
                        .run = std::move(run)};
    const MutexLock lock(mutex_);
    images_[name] = image;
    images_[image.id] = std::move(image);
  }
  [[nodiscard]] int leases() const { return *leases_; }

  StatusOr<images::Image> Pull(const Context& /*context*/, const std::string& reference,
                               const images::RegistryCredentials& /*credentials*/,
                               const std::function<void(const images::PullProgress&)>& /*progress*/) override {
    return Get(reference);
  }
  StatusOr<std::optional<images::Image>> Find(const std::string& reference) override {
    auto image = Get(reference);
    return image.ok() ? std::optional(*std::move(image)) : std::nullopt;
  }
  StatusOr<std::vector<images::Image>> List() override { return std::vector<images::Image>(); }
  Status Remove(const Context& /*context*/, const std::string& reference) override {
    const MutexLock lock(mutex_);
    images_.erase(reference);
    images_.erase("sha256:" + reference);
    return absl::OkStatus();
  }
  StatusOr<images::FileSystemUsage> Usage() override { return images::FileSystemUsage(); }
  StatusOr<std::shared_ptr<images::ImageLease>> Acquire(const std::string& reference) override {
    HUSK_ASSIGN_OR_RETURN(images::Image image, Get(reference));
    return std::make_shared<Lease>(std::move(image), leases_);
  }
  Status CollectGarbage(const Context& /*context*/) override { return absl::OkStatus(); }

 private:
  class Lease final : public images::ImageLease {
   public:
    Lease(images::Image image, std::shared_ptr<std::atomic<int>> count)
        : image_(std::move(image)), count_(std::move(count)), disk_{{.path = "/fake/" + image_.id, .length = 4096}} {
      ++*count_;
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() override { --*count_; }
    [[nodiscard]] const images::Image& image() const override { return image_; }
    [[nodiscard]] const std::vector<images::DiskPart>& disk() const override { return disk_; }

   private:
    const images::Image image_;
    const std::shared_ptr<std::atomic<int>> count_;
    const std::vector<images::DiskPart> disk_;
  };

  StatusOr<images::Image> Get(const std::string& reference) {
    const MutexLock lock(mutex_);
    const auto found = images_.find(reference);
    if (found == images_.end()) return absl::NotFoundError(absl::StrCat("there is no image ", reference));
    return found->second;
  }

  Mutex mutex_;
  std::map<std::string, images::Image> images_ ABSL_GUARDED_BY(mutex_);
  const std::shared_ptr<std::atomic<int>> leases_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_TESTING_FAKE_IMAGES_H_
