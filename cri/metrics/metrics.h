// huskd's figures, and their text for Prometheus. docs/metrics.md lists them.
#ifndef HUSK_CRI_METRICS_METRICS_H_
#define HUSK_CRI_METRICS_METRICS_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "agent/common/status.h"
#include "cri/call_observer.h"
#include "cri/lanes.h"
#include "sandbox/event_hub.h"
#include "sandbox/observer.h"
#include "sandbox/runtime.h"

namespace husk::cri {

struct BuildInformation {
  std::string version;
  std::string qemu_version;
  std::string accelerator;
};

// What is asked at each scrape. Those borrowed must outlive the last one.
struct MetricSources {
  const Lanes* lanes = nullptr;
  sandbox::Runtime* runtime = nullptr;
  sandbox::EventHub* events = nullptr;
};

// Thread safe. Labels have few values each: nothing that a pod's author writes is in one.
class Metrics final : public CallObserver, public sandbox::Observer {
 public:
  Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;
  ~Metrics() override;

  void OnCall(std::string_view method, absl::StatusCode code, std::chrono::nanoseconds took) override;
  void OnPull(bool ok, std::uint64_t bytes, std::chrono::nanoseconds took) override;
  void OnBootStep(sandbox::BootStep step, std::chrono::nanoseconds took, bool ok) override;
  void OnPodReady(std::chrono::nanoseconds took) override;
  void OnLogged(std::uint64_t bytes) override;
  void OnContainerExit(std::string_view reason) override;
  void OnResize(sandbox::ResizeDirection direction, sandbox::ResizeResult result) override;
  // A round trip to an agent.
  void OnAgentCall(std::string_view method, std::chrono::nanoseconds took, const Status& status);

  void SetBuild(const BuildInformation& build);

  // All figures of now in Prometheus' text format 0.0.4. Waits for no pod: lists and counters are in memory.
  [[nodiscard]] std::string Text(const MetricSources& sources) const;

 private:
  class Figures;
  const std::unique_ptr<Figures> figures_;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_METRICS_METRICS_H_
