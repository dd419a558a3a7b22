#include "agent/guest/huge_pages.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "agent/guest/files.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

constexpr std::string_view kPrefix = "hugepages-";
constexpr std::string_view kSuffix = "kB";

// As the kernel names the files of its cgroups.
std::string SizeName(std::uint64_t kibibytes) {
  if (kibibytes >= (1U << 20)) return absl::StrCat(kibibytes >> 20, "GB");
  if (kibibytes >= (1U << 10)) return absl::StrCat(kibibytes >> 10, "MB");
  return absl::StrCat(kibibytes, "KB");
}

// Of "hugepages-2048kB"; 0 for other names.
std::uint64_t KibibytesOf(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return 0;
  name.remove_prefix(kPrefix.size());
  if (name.size() < kSuffix.size()) return 0;
  name.remove_suffix(kSuffix.size());
  std::uint64_t kibibytes = 0;
  return ParseNumber(name, kibibytes) ? kibibytes : 0;
}

std::uint64_t ReadCount(const std::string& path) {
  const auto text = ReadFile(path, 64);
  std::uint64_t count = 0;
  return text.ok() && ParseNumber(Trim(*text), count) ? count : 0;
}

Status WriteCount(const std::string& path, std::uint64_t count) {
  return WriteFile(path, absl::StrCat(count, "\n"));
}

}  // namespace

HugePages::HugePages(Places places) : places_(std::move(places)) {
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(places_.pools, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::uint64_t kibibytes = KibibytesOf(entry->path().filename().string());
    if (kibibytes == 0) continue;
    pools_.push_back({.size = SizeName(kibibytes),
                      .page_bytes = kibibytes * 1024,
                      .count = (entry->path() / "nr_hugepages").string()});
  }
  std::sort(pools_.begin(), pools_.end(), [](const Pool& a, const Pool& b) { return a.page_bytes < b.page_bytes; });
}

std::vector<std::string> HugePages::Sizes() const {
  std::vector<std::string> sizes;
  for (const Pool& pool : pools_) sizes.push_back(pool.size);
  return sizes;
}

const HugePages::Pool* HugePages::Find(const std::string& size) const {
  const auto found = std::find_if(pools_.begin(), pools_.end(), [&](const Pool& pool) { return pool.size == size; });
  return found == pools_.end() ? nullptr : &*found;
}

std::uint64_t HugePages::PagesIn(const Pool& pool, const Reservations& reservations) {
  std::uint64_t pages = 0;
  for (const auto& [id, bytes] : reservations) {
    const auto found = bytes.find(pool.size);
    if (found != bytes.end()) pages += found->second / pool.page_bytes;
  }
  return pages;
}

Status HugePages::Fill(const Pool& pool, std::uint64_t pages) const {
  HUSK_RETURN_IF_ERROR(WriteCount(pool.count, pages));
  std::uint64_t granted = ReadCount(pool.count);
  if (granted < pages) {
    WriteFile(places_.compact, "1").IgnoreError();
    HUSK_RETURN_IF_ERROR(WriteCount(pool.count, pages));
    granted = ReadCount(pool.count);
  }
  if (granted >= pages) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("hugepage_limits[", pool.size, "]: of the ", pages,
                                                   " pages that the pod's containers want, the VM's memory holds ",
                                                   granted));
}

Status HugePages::Reserve(const std::string& container_id, const HugePageBytes& bytes) {
  for (const auto& [size, amount] : bytes) {
    if (amount == 0 || Find(size) != nullptr) continue;
    return absl::InvalidArgumentError(absl::StrCat("hugepage_limits[", size, "]: the VM's kernel has huge pages of ",
                                                   pools_.empty() ? "no size" : absl::StrJoin(Sizes(), " and ")));
  }
  Reservations changed = reservations_;
  changed[container_id] = bytes;
  for (const Pool& pool : pools_) {
    const std::uint64_t pages = PagesIn(pool, changed);
    if (pages == PagesIn(pool, reservations_)) continue;
    const Status filled = Fill(pool, pages);
    if (filled.ok()) continue;
    for (const Pool& touched : pools_) WriteCount(touched.count, PagesIn(touched, reservations_)).IgnoreError();
    return filled;
  }
  reservations_ = std::move(changed);
  return absl::OkStatus();
}

void HugePages::Release(const std::string& container_id) {
  const auto found = reservations_.find(container_id);
  if (found == reservations_.end()) return;
  const HugePageBytes released = std::move(found->second);
  reservations_.erase(found);
  for (const Pool& pool : pools_) {
    const auto amount = released.find(pool.size);
    if (amount == released.end() || amount->second == 0) continue;
    WriteCount(pool.count, PagesIn(pool, reservations_)).IgnoreError();
  }
}

}  // namespace husk::agent
