#include "agent/guest/memory_mark.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/guest/cgroup.h"
#include "agent/guest/files.h"
#include "agent/guest/meminfo.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

// For the kernel: descriptors of the memory that is about to come (16 MiB to the gibibyte) have to lie in what there
// is.
constexpr std::uint64_t kMargin = std::uint64_t{32} << 20;
// Whoever is below the mark by no more than that has reached it: the kernel charges in batches.
constexpr std::uint64_t kNear = std::uint64_t{4} << 20;
constexpr auto kPatience = std::chrono::seconds(10);
// There is too much when half of it, and more than a small VM's, was not used in so many looks.
constexpr auto kLookInterval = std::chrono::seconds(2);
constexpr int kLooks = 5;
constexpr std::uint64_t kLeastSurplus = std::uint64_t{192} << 20;
// Microseconds that somebody waited for memory, out of how many: the shortest window that the kernel takes.
constexpr std::string_view kTrigger = "some 20000 500000";

std::uint64_t ReadBytes(const std::string& path) {
  const auto text = ReadFile(path, 64);
  std::uint64_t bytes = 0;
  return text.ok() && ParseNumber(Trim(*text), bytes) ? bytes : 0;
}

}  // namespace

std::uint64_t MarkBytes(const MemoryMark::Places& places) {
  // Cache counts once: it is available.
  const std::uint64_t containers = CgroupMemoryInUse(places.cgroup) + MeminfoBytes(places.meminfo, "MemAvailable:");
  return containers > kMargin ? containers - kMargin : 0;
}

MemoryMark::MemoryMark(EventLoop& loop, Places places, std::function<void()> on_news)
    : loop_(loop), places_(std::move(places)), on_news_(std::move(on_news)) {}

MemoryMark::~MemoryMark() {
  if (patience_) loop_.Cancel(*patience_);
  if (look_) loop_.Cancel(*look_);
  if (pressure_.valid()) loop_.Unwatch(pressure_.get());
}

void MemoryMark::Set(std::uint64_t leaving_bytes) {
  WatchPressure();
  if (!pressure_.valid()) return;
  const std::uint64_t present = MarkBytes(places_);
  mark_ = present - std::min(present, leaving_bytes);
  Write();
  looks_with_surplus_ = 0;
  if (!look_) LookForSurplus();
}

void MemoryMark::Remove() {
  mark_.reset();
  Write();
}

void MemoryMark::Write() {
  if (patience_) loop_.Cancel(*std::exchange(patience_, std::nullopt));
  WriteFile(places_.cgroup + "/memory.high", mark_ ? absl::StrCat(*mark_) : "max").IgnoreError();
}

std::uint64_t MemoryMark::SpareBytes() const {
  const std::uint64_t could = MarkBytes(places_);
  return could - std::min(could, CgroupMemoryInUse(places_.cgroup));
}

void MemoryMark::LookForSurplus() {
  look_.reset();
  if (!mark_) return;
  look_ = loop_.After(kLookInterval, [this] { LookForSurplus(); });
  const std::uint64_t spare = SpareBytes();
  looks_with_surplus_ = spare >= kLeastSurplus && spare >= *mark_ / 2 ? looks_with_surplus_ + 1 : 0;
  if (looks_with_surplus_ < kLooks) return;
  looks_with_surplus_ = 0;
  ++surpluses_;
  on_news_();
}

void MemoryMark::WatchPressure() {
  if (pressure_.valid()) return;
  UniqueFd file(open((places_.cgroup + "/memory.pressure").c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) return;
  if (write(file.get(), kTrigger.data(), kTrigger.size()) != static_cast<ssize_t>(kTrigger.size())) return;
  if (!loop_.Watch(file.get(), EPOLLPRI, [this](std::uint32_t) { OnPressure(); }).ok()) return;
  pressure_ = std::move(file);
}

void MemoryMark::OnPressure() {
  // A container at a limit of its own waits too.
  if (!mark_ || ReadBytes(places_.cgroup + "/memory.current") + kNear < *mark_) return;
  ++shortages_;
  if (!patience_) {
    patience_ = loop_.After(kPatience, [this] {
      patience_.reset();
      Remove();
    });
  }
  on_news_();
}

}  // namespace husk::agent
