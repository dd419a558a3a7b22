#include "agent/guest/guest_size.h"

#include <chrono>
#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/guest/files.h"
#include "agent/guest/meminfo.h"
#include "agent/guest/retry.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

// An emulated guest on a busy host sees a CPU within seconds.
constexpr auto kHotplugPatience = std::chrono::seconds(20);
constexpr std::string_view kCpu = "cpu";

// By the kernel's numbers, which are the VM's: huskd plugs them in by rising and takes them out by falling number, and
// the kernel numbers them as they come.
std::set<std::uint32_t> PresentCpus(const std::string& directory) {
  std::set<std::uint32_t> numbers;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(directory, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::uint32_t number = 0;
    if (name.starts_with(kCpu) && ParseNumber(std::string_view(name).substr(kCpu.size()), number)) {
      numbers.insert(number);
    }
  }
  return numbers;
}

}  // namespace

GuestSize::GuestSize(EventLoop& loop, Places places, MemoryMark& mark)
    : loop_(loop), places_(std::move(places)), mark_(mark) {}

bool GuestSize::Online(const std::string& cpu) const {
  const auto online = ReadFile(cpu + "/online", 16);
  // One that cannot go offline has no such file.
  return !online.ok() || Trim(*online) != "0";
}

std::uint32_t GuestSize::OnlineCpus() const {
  std::uint32_t online = 0;
  for (const std::uint32_t number : PresentCpus(places_.cpus)) {
    if (Online(absl::StrCat(places_.cpus, "/cpu", number))) ++online;
  }
  return online;
}

Status GuestSize::BringCpusTo(std::uint32_t count) const {
  const std::set<std::uint32_t> present = PresentCpus(places_.cpus);
  for (const std::uint32_t number : present) {
    const std::string cpu = absl::StrCat(places_.cpus, "/cpu", number);
    const bool wanted = number < count || number == 0;
    if (Online(cpu) == wanted) continue;
    const Status written = WriteFile(cpu + "/online", wanted ? "1" : "0");
    if (!written.ok()) {
      return absl::FailedPreconditionError(
          absl::StrCat("bring CPU ", number, wanted ? " online: " : " offline: ", written.message()));
    }
  }
  for (std::uint32_t number = 0; number < count; ++number) {
    if (present.contains(number)) continue;
    return absl::ResourceExhaustedError(
        absl::StrCat("of ", count, " CPUs the guest's kernel does not see number ", number));
  }
  return absl::OkStatus();
}

void GuestSize::Resize(const v1::ResizeGuestRequest& request,
                       std::function<void(StatusOr<v1::ResizeGuestResponse>)> done) {
  if (request.cpus() == 0) return done(absl::InvalidArgumentError("cpus: is 0"));
  // A kernel without that choice uses all memory for everything.
  WriteFile(places_.online_policy, request.unmovable_memory() ? "contig-zones" : "auto-movable").IgnoreError();
  Retry(
      loop_, kHotplugPatience, [this, count = request.cpus()] { return BringCpusTo(count); },
      [this, grows = request.memory_can_grow(), leaving = request.leaving_memory_bytes(),
       done = std::move(done)](const Status& status) {
        if (!status.ok()) return done(status);
        grows ? mark_.Set(leaving) : mark_.Remove();
        v1::ResizeGuestResponse response;
        response.set_online_cpus(OnlineCpus());
        response.set_memory_total_bytes(MemoryTotalBytes());
        done(std::move(response));
      });
}

}  // namespace husk::agent
