// Whether KVM can really run a guest here: found out by running one of three instructions.
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "agent/common/unique_fd.h"
#include "hypervisor/qemu/accelerator.h"
#include "hypervisor/qemu/qemu_hypervisor.h"

namespace husk::hypervisor {
namespace {

constexpr std::uint64_t kGuestAddress = 0x1000;
constexpr std::size_t kGuestBytes = 4096;
constexpr std::uint16_t kPort = 0x10;
constexpr std::uint8_t kProof = 0x2a;
// mov al, 0x2a; out 0x10, al; hlt
constexpr std::array<std::uint8_t, 5> kGuestCode = {0xb0, kProof, 0xe6, kPort, 0xf4};
constexpr int kTimeLimitMilliseconds = 2000;

// Exit codes of the child that runs the guest.
enum ProbeResult { kRan = 0, kNoVm = 1, kNoMemory = 2, kNoVcpu = 3, kDidNotRun = 4 };

const char* Describe(int result) {
  switch (result) {
    case kNoVm:
      return "KVM_CREATE_VM fails";
    case kNoMemory:
      return "KVM takes no guest memory";
    case kNoVcpu:
      return "KVM makes no vCPU";
    default:
      return "a test guest did not run";
  }
}

// Runs until the guest has said its byte at its port. Only system calls: this is the child of a fork.
ProbeResult RunGuest(int kvm) {
  const int vm = ioctl(kvm, KVM_CREATE_VM, 0UL);
  if (vm < 0) return kNoVm;
  void* memory = mmap(nullptr, kGuestBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return kNoMemory;
  std::memcpy(memory, kGuestCode.data(), kGuestCode.size());
  kvm_userspace_memory_region region{};
  region.guest_phys_addr = kGuestAddress;
  region.memory_size = kGuestBytes;
  region.userspace_addr = reinterpret_cast<std::uintptr_t>(memory);  // the kernel's interface wants a number
  if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) != 0) return kNoMemory;

  const int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
  const int run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0UL);
  if (vcpu < 0 || run_bytes < static_cast<int>(sizeof(kvm_run))) return kNoVcpu;
  void* shared = mmap(nullptr, static_cast<std::size_t>(run_bytes), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (shared == MAP_FAILED) return kNoVcpu;
  kvm_sregs special{};
  if (ioctl(vcpu, KVM_GET_SREGS, &special) != 0) return kNoVcpu;
  special.cs.base = 0;
  special.cs.selector = 0;
  kvm_regs registers{};
  registers.rip = kGuestAddress;
  registers.rflags = 2;  // the bit that is always set
  if (ioctl(vcpu, KVM_SET_SREGS, &special) != 0 || ioctl(vcpu, KVM_SET_REGS, &registers) != 0) return kNoVcpu;

  if (ioctl(vcpu, KVM_RUN, 0UL) != 0) return kDidNotRun;
  const auto* run = static_cast<const kvm_run*>(shared);
  if (run->exit_reason != KVM_EXIT_IO || run->io.port != kPort) return kDidNotRun;
  const auto* data = static_cast<const std::uint8_t*>(shared) + run->io.data_offset;
  return *data == kProof ? kRan : kDidNotRun;
}

// In a child, because a KVM that does not work may never return from KVM_RUN.
int RunGuestInChild(int kvm) {
  const pid_t child = fork();
  if (child < 0) return kDidNotRun;
  if (child == 0) _exit(RunGuest(kvm));
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  pollfd ended{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
  int ready = 0;
  do {
    ready = poll(&ended, 1, kTimeLimitMilliseconds);
  } while (ready < 0 && errno == EINTR);
  if (ready <= 0) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : kDidNotRun;
}

bool CpuCanVirtualise() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  while (std::getline(cpuinfo, line)) {
    if (line.starts_with("flags")) return HasVirtualisationFlag(line);
  }
  return false;
}

AcceleratorProbe Translated(std::string reason) {
  return {.accelerator = Accelerator::kTcg, .reason = std::move(reason)};
}

}  // namespace

bool HasVirtualisationFlag(const std::string& flags_line) {
  for (const absl::string_view flag : absl::StrSplit(flags_line, ' ')) {
    if (flag == "vmx" || flag == "svm") return true;
  }
  return false;
}

AcceleratorProbe ProbeAccelerator() {
  const UniqueFd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm.valid()) return Translated(absl::StrCat("/dev/kvm cannot be opened: ", strerrordesc_np(errno)));
  if (const int version = ioctl(kvm.get(), KVM_GET_API_VERSION, 0UL); version != KVM_API_VERSION) {
    return Translated(absl::StrCat("/dev/kvm opens, but its API version is ", version));
  }
  // Such hosts exist: small guests run in their KVM, and a stock kernel hangs.
  if (!CpuCanVirtualise()) return Translated("/dev/kvm opens, but the CPU has no vmx or svm");
  if (const int result = RunGuestInChild(kvm.get()); result != kRan) {
    return Translated(absl::StrCat("/dev/kvm opens, but ", Describe(result)));
  }
  return {.accelerator = Accelerator::kKvm, .reason = "/dev/kvm opens and ran a test guest"};
}

}  // namespace husk::hypervisor
