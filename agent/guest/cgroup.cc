#include "agent/guest/cgroup.h"

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "agent/guest/files.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

void AddProcesses(const std::string& cgroup, std::vector<pid_t>& pids) {
  const auto listed = ReadFile(cgroup + "/cgroup.procs");
  if (!listed.ok()) return;
  for (const std::string_view line : SplitWords(*listed, '\n')) {
    pid_t pid = 0;
    if (ParseNumber(line, pid) && pid > 1) pids.push_back(pid);
  }
}

}  // namespace

std::vector<pid_t> CgroupProcesses(const std::string& cgroup) {
  std::vector<pid_t> pids;
  AddProcesses(cgroup, pids);
  std::error_code error;
  for (auto entry = std::filesystem::recursive_directory_iterator(cgroup, error);
       !error && entry != std::filesystem::recursive_directory_iterator(); entry.increment(error)) {
    if (entry->is_directory(error)) AddProcesses(entry->path().string(), pids);
  }
  return pids;
}

void SignalCgroup(const std::string& cgroup, int signal, pid_t leader) {
  if (signal == SIGKILL && WriteFile(cgroup + "/cgroup.kill", "1").ok()) {
    if (leader > 0) kill(leader, SIGKILL);
    return;
  }
  // A process may have forked between the listing and its signal; afterwards it cannot, if the signal ends it. So look
  // again until nobody is new. The bound is for those that catch the signal and go on forking.
  constexpr int kMaximumListings = 16;
  std::set<pid_t> signalled;
  for (int listing = 0; listing < kMaximumListings; ++listing) {
    std::vector<pid_t> pids = CgroupProcesses(cgroup);
    if (leader > 0) pids.push_back(leader);
    const std::size_t before = signalled.size();
    for (const pid_t pid : pids) {
      if (signalled.insert(pid).second) kill(pid, signal);
    }
    if (signalled.size() == before) return;
  }
}

OutOfMemory CgroupOutOfMemory(const std::string& cgroup) {
  const auto events = ReadFile(cgroup + "/memory.events", 4096);
  if (!events.ok()) return OutOfMemory::kNone;
  std::uint64_t kills = 0;
  std::uint64_t limits_reached = 0;
  for (const std::string_view line : Split(*events, '\n')) {
    const std::vector<std::string_view> words = Split(line, ' ');
    if (words.size() != 2) continue;
    if (words[0] == "oom_kill") ParseNumber(words[1], kills);
    if (words[0] == "oom") ParseNumber(words[1], limits_reached);
  }
  if (kills == 0) return OutOfMemory::kNone;
  return limits_reached > 0 ? OutOfMemory::kContainer : OutOfMemory::kGuest;
}

std::uint64_t CgroupMemoryInUse(const std::string& cgroup) {
  const auto current = ReadFile(cgroup + "/memory.current", 64);
  const auto stat = ReadFile(cgroup + "/memory.stat", 16384);
  std::uint64_t used = 0;
  if (!current.ok() || !stat.ok() || !ParseNumber(Trim(*current), used)) return 0;
  for (const std::string_view line : Split(*stat, '\n')) {
    const std::vector<std::string_view> words = Split(line, ' ');
    // Files in memory alone (tmpfs) are not in these lists.
    if (words.size() != 2 || (words[0] != "inactive_file" && words[0] != "active_file")) continue;
    std::uint64_t cache = 0;
    if (ParseNumber(words[1], cache)) used -= std::min(used, cache);
  }
  return used;
}

}  // namespace husk::agent
