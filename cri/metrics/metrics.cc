#include "cri/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <utility>
#include <vector>

#include "cri/metrics/process_figures.h"
#include "cri/metrics/sampled_figures.h"

namespace husk::cri {

namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::Labels;

// Calls take milliseconds or, with a boot under emulation, minutes.
const Histogram::BucketBoundaries kCallBuckets = {0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
const Histogram::BucketBoundaries kAgentBuckets = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5, 30};

constexpr std::array<std::pair<sandbox::BootStep, const char*>, 7> kBootSteps = {
    {{sandbox::BootStep::kNetwork, "network"},
     {sandbox::BootStep::kCgroup, "cgroup"},
     {sandbox::BootStep::kDisk, "disk"},
     {sandbox::BootStep::kTurn, "turn"},
     {sandbox::BootStep::kVm, "vm"},
     {sandbox::BootStep::kAgent, "agent"},
     {sandbox::BootStep::kConfigure, "configure"}}};
constexpr std::array<std::string_view, 5> kExitReasons = {"Completed", "Error", "OOMKilled", "StartError", "Unknown"};

const char* DirectionName(sandbox::ResizeDirection direction) {
  return direction == sandbox::ResizeDirection::kGrow ? "grow" : "shrink";
}

const char* ResultName(sandbox::ResizeResult result) {
  switch (result) {
    case sandbox::ResizeResult::kOk:
      return "ok";
    case sandbox::ResizeResult::kFailed:
      return "failed";
    case sandbox::ResizeResult::kOwed:
      return "owed";
  }
  return "other";
}

double Seconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

std::string StepName(sandbox::BootStep step) {
  for (const auto& [known, name] : kBootSteps) {
    if (known == step) return name;
  }
  return "other";
}

std::string ReasonName(std::string_view reason) {
  for (const std::string_view known : kExitReasons) {
    if (known == reason) return std::string(known);
  }
  return "Unknown";
}

}  // namespace

class Metrics::Figures {
 public:
  Figures() {
    // What will come some day is there with 0 from the start, so that its first increase is seen as one.
    for (const auto& [step, name] : kBootSteps) {
      boot_step_seconds.Add({{"step", name}}, kCallBuckets);
      boot_step_failures.Add({{"step", name}});
    }
    for (const std::string_view reason : kExitReasons) exits.Add({{"reason", std::string(reason)}});
    for (const char* result : {"ok", "failed"}) pulls.Add({{"result", result}});
    for (const char* result : {"ok", "failed"}) resizes.Add({{"direction", "grow"}, {"result", result}});
    for (const char* result : {"ok", "owed"}) resizes.Add({{"direction", "shrink"}, {"result", result}});
  }

  Family<Counter>& NewCounter(const std::string& name, const std::string& help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Histogram>& NewHistogram(const std::string& name, const std::string& help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  prometheus::Registry registry;
  Family<prometheus::Gauge>& build = prometheus::BuildGauge()
                                         .Name("husk_build_info")
                                         .Help("Always 1; what huskd and its QEMU are stands in the labels.")
                                         .Register(registry);
  Family<Counter>& calls = NewCounter("husk_calls_total", "Calls of the CRI that have ended, by method and gRPC code.");
  Family<Histogram>& call_seconds =
      NewHistogram("husk_call_seconds", "How long calls of the CRI took, without the time in their lane's queue.");
  Family<Counter>& agent_calls =
      NewCounter("husk_agent_calls_total", "Round trips to the agents in the guests, by method and code.");
  Family<Histogram>& agent_call_seconds =
      NewHistogram("husk_agent_call_seconds", "How long round trips to the agents took, but for Poll, which waits.");
  Family<Histogram>& boot_step_seconds =
      NewHistogram("husk_boot_step_seconds", "How long the steps of a pod's start took.");
  Family<Counter>& boot_step_failures =
      NewCounter("husk_boot_step_failures_total", "Steps of pods' starts that failed.");
  Histogram& pod_start_seconds =
      NewHistogram("husk_pod_start_seconds", "How long pods took to be ready.").Add({}, kCallBuckets);
  Family<Counter>& pulls = NewCounter("husk_pulls_total", "Pulls of images that have ended.");
  Counter& pull_bytes =
      NewCounter("husk_pull_bytes_total", "Compressed bytes of layers that pulls have fetched.").Add({});
  Histogram& pull_seconds = NewHistogram("husk_pull_seconds", "How long pulls took.").Add({}, kCallBuckets);
  Family<Counter>& exits = NewCounter("husk_container_exits_total", "Containers that have exited, by reason.");
  Counter& oom_kills = NewCounter("husk_oom_kills_total", "Containers that ended for lack of memory.").Add({});
  Family<Counter>& resizes =
      NewCounter("husk_resizes_total", "Attempts to make a VM larger or smaller that have ended, by result.");
  Counter& log_bytes =
      NewCounter("husk_container_log_bytes_total", "Bytes of containers' output written to their logs.").Add({});
};

Metrics::Metrics() : figures_(std::make_unique<Figures>()) {}

Metrics::~Metrics() = default;

void Metrics::OnCall(std::string_view method, absl::StatusCode code, std::chrono::nanoseconds took) {
  figures_->calls.Add({{"method", std::string(method)}, {"code", absl::StatusCodeToString(code)}}).Increment();
  figures_->call_seconds.Add({{"method", std::string(method)}}, kCallBuckets).Observe(Seconds(took));
}

void Metrics::OnPull(bool ok, std::uint64_t bytes, std::chrono::nanoseconds took) {
  figures_->pulls.Add({{"result", ok ? "ok" : "failed"}}).Increment();
  figures_->pull_bytes.Increment(static_cast<double>(bytes));
  figures_->pull_seconds.Observe(Seconds(took));
}

void Metrics::OnBootStep(sandbox::BootStep step, std::chrono::nanoseconds took, bool ok) {
  figures_->boot_step_seconds.Add({{"step", StepName(step)}}, kCallBuckets).Observe(Seconds(took));
  if (!ok) figures_->boot_step_failures.Add({{"step", StepName(step)}}).Increment();
}

void Metrics::OnPodReady(std::chrono::nanoseconds took) {
  figures_->pod_start_seconds.Observe(Seconds(took));
}

void Metrics::OnLogged(std::uint64_t bytes) {
  figures_->log_bytes.Increment(static_cast<double>(bytes));
}

void Metrics::OnContainerExit(std::string_view reason) {
  figures_->exits.Add({{"reason", ReasonName(reason)}}).Increment();
  if (reason == "OOMKilled") figures_->oom_kills.Increment();
}

void Metrics::OnResize(sandbox::ResizeDirection direction, sandbox::ResizeResult result) {
  figures_->resizes.Add({{"direction", DirectionName(direction)}, {"result", ResultName(result)}}).Increment();
}

void Metrics::OnAgentCall(std::string_view method, std::chrono::nanoseconds took, const Status& status) {
  const std::string name(method);
  figures_->agent_calls.Add({{"method", name}, {"code", absl::StatusCodeToString(status.code())}}).Increment();
  if (method != "Poll") figures_->agent_call_seconds.Add({{"method", name}}, kAgentBuckets).Observe(Seconds(took));
}

void Metrics::SetBuild(const BuildInformation& build) {
  figures_->build.Add({{"version", build.version}, {"qemu", build.qemu_version}, {"accelerator", build.accelerator}})
      .Set(1);
}

std::string Metrics::Text(const MetricSources& sources) const {
  std::vector<prometheus::MetricFamily> families = figures_->registry.Collect();
  AddSampledFigures(sources, &families);
  AddProcessFigures(&families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace husk::cri
