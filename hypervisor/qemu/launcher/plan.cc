#include "hypervisor/qemu/launcher/plan.h"

#include <charconv>
#include <string_view>

namespace husk::hypervisor::launcher {
namespace {

template <typename Integer>
bool ParseNumber(std::string_view text, Integer& number) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

bool ParseDescriptor(std::string_view text, int& descriptor) {
  return ParseNumber(text, descriptor) && descriptor > 2;
}

bool AppendDescriptor(std::string_view text, std::vector<int>& descriptors) {
  int descriptor = -1;
  if (!ParseDescriptor(text, descriptor)) return false;
  descriptors.push_back(descriptor);
  return true;
}

bool AppendGroup(std::string_view text, std::vector<gid_t>& groups) {
  gid_t group = 0;
  if (!ParseNumber(text, group) || group == 0) return false;
  groups.push_back(group);
  return true;
}

// "TARGET:SOURCE"; targets are Husk's choice and have no colon.
bool AppendBind(std::string_view text, std::vector<Bind>& binds) {
  const auto colon = text.find(':');
  if (colon == std::string_view::npos) return false;
  Bind bind{.source = std::string(text.substr(colon + 1)), .target = std::string(text.substr(0, colon))};
  const bool absolute = bind.source.starts_with('/') && bind.target.starts_with('/');
  if (!absolute || bind.target.find("..") != std::string::npos) return false;
  binds.push_back(std::move(bind));
  return true;
}

bool ParseOption(std::string_view name, std::string_view value, Plan& plan) {
  if (name == "--state-directory") return ParseDescriptor(value, plan.state_directory);
  if (name == "--go") return ParseDescriptor(value, plan.go);
  if (name == "--network-namespace" && value == "new") return plan.new_network_namespace = true;
  if (name == "--network-namespace") return ParseDescriptor(value, plan.network_namespace);
  if (name == "--cgroup-procs") return AppendDescriptor(value, plan.cgroup_procs);
  if (name == "--user") return ParseNumber(value, plan.user);
  if (name == "--group") return ParseNumber(value, plan.group);
  if (name == "--supplementary-group") return AppendGroup(value, plan.supplementary_groups);
  if (name == "--bind") return AppendBind(value, plan.binds);
  if (name == "--share") return ParseDescriptor(value, plan.share);
  if (name == "--share-read-only" && value == "yes") return plan.share_read_only = true;
  if (name == "--share-alone" && value == "yes") return plan.share_alone = true;
  if (name == "--keep") return AppendDescriptor(value, plan.keep);
  return false;
}

bool IsUnset(const Plan& plan) {
  return plan.user == 0 && plan.group == 0 && plan.supplementary_groups.empty();
}

const char* WhatIsMissing(const Plan& plan) {
  if (plan.state_directory < 0) return "--state-directory";
  if (plan.go < 0) return "--go";
  if (plan.new_network_namespace == (plan.network_namespace >= 0)) return "one --network-namespace";
  if (plan.share >= 0 && !IsUnset(plan)) return "a --share without users and groups";
  if (plan.share < 0 && plan.share_read_only) return "a --share to be read-only";
  if (plan.share < 0 && plan.share_alone) return "a --share to be alone";
  const bool is_qemu = plan.share < 0;
  if (is_qemu && (plan.user == 0 || plan.user == static_cast<uid_t>(-1))) return "a --user that is not root";
  if (is_qemu && (plan.group == 0 || plan.group == static_cast<gid_t>(-1))) return "a --group that is not root's";
  if (plan.command.empty() || !plan.command[0].starts_with('/')) return "an absolute command";
  return nullptr;
}

}  // namespace

bool ParsePlan(const std::vector<std::string>& arguments, Plan& plan, std::string& error) {
  std::size_t index = 1;
  for (; index < arguments.size() && arguments[index] != "--"; ++index) {
    const std::string_view argument = arguments[index];
    const auto equals = argument.find('=');
    if (equals == std::string_view::npos ||
        !ParseOption(argument.substr(0, equals), argument.substr(equals + 1), plan)) {
      error = "bad argument " + arguments[index];
      return false;
    }
  }
  for (++index; index < arguments.size(); ++index) plan.command.push_back(arguments[index]);
  if (const char* missing = WhatIsMissing(plan); missing != nullptr) {
    error = std::string("the plan needs ") + missing;
    return false;
  }
  return true;
}

std::vector<std::string> PlanArguments(const std::string& launcher_binary, const Plan& plan) {
  std::vector<std::string> arguments = {launcher_binary};
  const auto add = [&arguments](const char* name, const std::string& value) {
    arguments.push_back(std::string(name) + "=" + value);
  };
  add("--state-directory", std::to_string(plan.state_directory));
  add("--go", std::to_string(plan.go));
  add("--network-namespace", plan.new_network_namespace ? "new" : std::to_string(plan.network_namespace));
  if (plan.share >= 0) {
    add("--share", std::to_string(plan.share));
  } else {
    add("--user", std::to_string(plan.user));
    add("--group", std::to_string(plan.group));
  }
  if (plan.share_read_only) add("--share-read-only", "yes");
  if (plan.share_alone) add("--share-alone", "yes");
  for (const int descriptor : plan.cgroup_procs) add("--cgroup-procs", std::to_string(descriptor));
  for (const gid_t group : plan.supplementary_groups) add("--supplementary-group", std::to_string(group));
  for (const Bind& bind : plan.binds) add("--bind", bind.target + ":" + bind.source);
  for (const int descriptor : plan.keep) add("--keep", std::to_string(descriptor));
  arguments.emplace_back("--");
  arguments.insert(arguments.end(), plan.command.begin(), plan.command.end());
  return arguments;
}

}  // namespace husk::hypervisor::launcher
