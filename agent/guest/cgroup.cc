#include "agent/guest/cgroup.h"

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "agent/guest/files.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

struct Kin {
  pid_t parent = 0;
  pid_t session = 0;
};

std::optional<Kin> KinOf(pid_t pid) {
  const auto stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"), 4096);
  if (!stat.ok()) return std::nullopt;
  // The name in brackets is the process's own choice and may hold anything.
  const auto bracket = stat->rfind(')');
  if (bracket == std::string::npos) return std::nullopt;
  const std::vector<std::string_view> fields = SplitWords(std::string_view(*stat).substr(bracket + 1), ' ');
  Kin kin;
  if (fields.size() < 4 || !ParseNumber(fields[1], kin.parent) || !ParseNumber(fields[3], kin.session)) {
    return std::nullopt;
  }
  return kin;
}

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

void SignalCgroup(const std::string& cgroup, int signal) {
  if (signal == SIGKILL && WriteFile(cgroup + "/cgroup.kill", "1").ok()) return;
  for (const pid_t pid : CgroupProcesses(cgroup)) kill(pid, signal);
}

bool CgroupHadOom(const std::string& cgroup) {
  const auto events = ReadFile(cgroup + "/memory.events", 4096);
  if (!events.ok()) return false;
  for (const std::string_view line : Split(*events, '\n')) {
    const std::vector<std::string_view> words = Split(line, ' ');
    std::uint64_t count = 0;
    if (words.size() == 2 && words[0] == "oom_kill" && ParseNumber(words[1], count)) return count > 0;
  }
  return false;
}

std::vector<pid_t> Family(pid_t leader, const std::vector<pid_t>& processes) {
  std::map<pid_t, Kin> kin;
  for (const pid_t pid : processes) {
    if (const auto known = KinOf(pid)) kin[pid] = *known;
  }
  std::set<pid_t> family{leader};
  for (const auto& [pid, relation] : kin) {
    if (relation.session == leader) family.insert(pid);
  }
  for (bool grown = true; grown;) {
    grown = false;
    for (const auto& [pid, relation] : kin) {
      if (family.contains(relation.parent) && family.insert(pid).second) grown = true;
    }
  }
  return {family.begin(), family.end()};
}

}  // namespace husk::agent
