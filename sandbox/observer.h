// What the runtime tells of its own work, for whoever keeps figures of it.
#ifndef HUSK_SANDBOX_OBSERVER_H_
#define HUSK_SANDBOX_OBSERVER_H_

#include <chrono>
#include <cstdint>
#include <string_view>

namespace husk::sandbox {

// The parts of RunPod that take time, in their order.
enum class BootStep {
  kNetwork,  // namespace, CNI, taps
  kCgroup,
  kDisk,       // the scratch disk
  kTurn,       // other VMs boot first
  kVm,         // until QEMU answers
  kAgent,      // until the guest's agent answers: kernel and init
  kConfigure,  // addresses, hostname, scratch disk in the guest
};

enum class ResizeDirection { kGrow, kShrink };
enum class ResizeResult {
  kOk,
  kFailed,  // what had grown is taken back
  kOwed,    // it is tried again
};

// Called from any of the runtime's threads, several at once, and with locks held: it returns at once and calls nothing
// of the runtime. By default it looks at nothing.
class Observer {
 public:
  virtual ~Observer() = default;

  // A step ended, well or not.
  virtual void OnBootStep(BootStep /*step*/, std::chrono::nanoseconds /*took*/, bool /*ok*/) {}
  // A pod is READY, this long after RunPod was called.
  virtual void OnPodReady(std::chrono::nanoseconds /*took*/) {}
  // So many bytes of a container's output are in its log.
  virtual void OnLogged(std::uint64_t /*bytes*/) {}
  // A container shows as EXITED. `reason` is that of ContainerStatus.
  virtual void OnContainerExit(std::string_view /*reason*/) {}
  // An attempt to make a VM larger or smaller has ended; not one that found nothing to do.
  virtual void OnResize(ResizeDirection /*direction*/, ResizeResult /*result*/) {}
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_OBSERVER_H_
