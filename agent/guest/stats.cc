#include "agent/guest/stats.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/guest/cgroup_stats.h"
#include "agent/guest/files.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

// A tmpfs knows by itself what it holds. Two of its inodes are Husk's own: its root and the staging directory.
constexpr std::uint64_t kOwnInodes = 2;

std::optional<v1::FileUsage> TmpfsUsage(const std::string& path) {
  struct statvfs facts{};
  if (statvfs(path.c_str(), &facts) != 0) return std::nullopt;
  v1::FileUsage usage;
  usage.set_used_bytes((facts.f_blocks - facts.f_bfree) * facts.f_frsize);
  const std::uint64_t inodes = facts.f_files - facts.f_ffree;
  usage.set_inodes(inodes - std::min(inodes, kOwnInodes));
  return usage;
}

void AddMemory(v1::GuestStats& guest) {
  const auto meminfo = ReadFile("/proc/meminfo", 4096);
  if (!meminfo.ok()) return;
  for (const std::string_view line : SplitWords(*meminfo, '\n')) {
    const std::vector<std::string_view> words = SplitWords(line);
    std::uint64_t kibibytes = 0;
    if (words.size() < 2 || !ParseNumber(words[1], kibibytes)) continue;
    if (words[0] == "MemTotal:") guest.set_memory_total_bytes(kibibytes * 1024);
    if (words[0] == "MemAvailable:") guest.set_memory_available_bytes(kibibytes * 1024);
  }
}

void AddScratch(const std::string& scratch, v1::GuestStats& guest) {
  struct statvfs facts{};
  if (!IsMountPoint(scratch) || statvfs(scratch.c_str(), &facts) != 0) return;
  guest.set_scratch_capacity_bytes(facts.f_blocks * facts.f_frsize);
  guest.set_scratch_available_bytes(facts.f_bavail * facts.f_frsize);
  guest.set_scratch_inodes(facts.f_files);
  guest.set_scratch_free_inodes(facts.f_ffree);
}

}  // namespace

Stats::Stats(EventLoop& loop, Children& children, Parts parts)
    : parts_(std::move(parts)), meter_(loop, children, parts_.measure_command) {}

void Stats::Answer(std::function<void(StatusOr<v1::StatsResponse>)> done) {
  std::vector<std::string> trees;
  for (const std::string& id : parts_.containers->Ids()) {
    if (std::string layer = parts_.roots->WritableLayer(id); !layer.empty()) trees.push_back(std::move(layer));
  }
  for (const Volumes::Tree& tree : parts_.volumes->Trees()) {
    if (!tree.in_memory) trees.push_back(tree.path);
  }
  meter_.Update(trees, [this, done = std::move(done)] { done(Collect()); });
}

v1::StatsResponse Stats::Collect() const {
  v1::StatsResponse response;
  for (const std::string& id : parts_.containers->Ids()) {
    v1::ContainerStats& container = *response.add_containers();
    container.set_container_id(id);
    const std::string cgroup = parts_.containers->Cgroup(id);
    std::error_code error;
    if (std::filesystem::is_directory(cgroup, error)) *container.mutable_cgroup() = ReadCgroupStats(cgroup);
    if (const auto usage = meter_.usage(parts_.roots->WritableLayer(id))) *container.mutable_writable_layer() = *usage;
  }
  for (const Volumes::Tree& tree : parts_.volumes->Trees()) {
    v1::VolumeStats& volume = *response.add_volumes();
    volume.set_volume_id(tree.volume_id);
    if (const auto usage = tree.in_memory ? TmpfsUsage(tree.path) : meter_.usage(tree.path)) {
      *volume.mutable_usage() = *usage;
    }
  }
  AddGuest(*response.mutable_guest());
  return response;
}

void Stats::AddGuest(v1::GuestStats& guest) const {
  *guest.mutable_containers() = ReadCgroupStats(absl::StrCat(parts_.cgroup_root, "/husk"));
  const v1::CgroupStats root = ReadCgroupStats(parts_.cgroup_root);
  if (root.cpu().has_usage_nanoseconds()) guest.set_cpu_nanoseconds(root.cpu().usage_nanoseconds());
  AddMemory(guest);
  guest.set_online_cpus(parts_.size->OnlineCpus());
  AddScratch(parts_.scratch, guest);
  const auto interfaces = ReadFile("/proc/net/dev");
  if (!interfaces.ok()) return;
  for (v1::InterfaceStats& interface : ParseInterfaces(*interfaces)) *guest.add_interfaces() = std::move(interface);
}

}  // namespace husk::agent
