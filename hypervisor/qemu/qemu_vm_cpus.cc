// Processors that a QemuVm gets and gives back while it runs.
#include <chrono>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "hypervisor/qemu/cpu_operations.h"
#include "hypervisor/qemu/qemu_vm.h"

namespace husk::hypervisor {
namespace {

// For each processor. An idle guest lets go of one within a second, an emulated one on a busy host within several.
constexpr auto kGuestPatience = std::chrono::seconds(30);

}  // namespace

Status QemuVm::SetVcpus(const Context& context, std::uint32_t count) {
  const std::string doing = absl::StrCat("set the number of vCPUs to ", count);
  if (count == 0) return absl::InvalidArgumentError(absl::StrCat(doing, ": a VM needs one"));
  Turn turn(*this);
  HUSK_RETURN_IF_ERROR_DOING(turn.Take(context), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(const auto qmp, Qmp(context), doing);
  HUSK_ASSIGN_OR_RETURN_DOING(const auto slots, ReadCpuSlots(context, *qmp), doing);
  if (count > slots.size()) {
    return absl::ResourceExhaustedError(absl::StrCat(doing, ": the VM can have ", slots.size()));
  }
  for (std::size_t number = 0; number < count; ++number) {
    if (!slots[number].path.empty()) continue;
    HUSK_RETURN_IF_ERROR_DOING(PlugCpu(context, *qmp, slots[number]), absl::StrCat(doing, ": plug ", number, " in"));
  }
  for (std::size_t number = slots.size() - 1; number >= count; --number) {
    if (slots[number].path.empty()) continue;
    HUSK_ASSIGN_OR_RETURN_DOING(const bool accelerated, HasKvm(context, *qmp), doing);
    if (!accelerated) return absl::FailedPreconditionError(absl::StrCat(doing, ": an emulated VM keeps its vCPUs"));
    HUSK_RETURN_IF_ERROR_DOING(UnplugCpu(context.WithTimeout(kGuestPatience), *qmp, slots[number]),
                               absl::StrCat(doing, ": take ", number, " out"));
  }
  return absl::OkStatus();
}

}  // namespace husk::hypervisor
