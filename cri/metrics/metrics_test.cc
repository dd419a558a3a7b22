#include "cri/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "cri/service/fakes_for_test.h"

namespace husk::cri {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::vector<std::string> Lines(const std::string& text) {
  return absl::StrSplit(text, '\n');
}

// Name and type of each family, by the TYPE lines.
std::map<std::string, std::string> Families(const std::string& text) {
  std::map<std::string, std::string> families;
  for (const std::string& line : Lines(text)) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() == 4 && words[1] == "TYPE") {
      EXPECT_TRUE(families.emplace(words[2], words[3]).second) << words[2] << " is there twice";
    }
  }
  return families;
}

// The same of the table in docs/metrics.md, with the labels of its third column.
struct Documented {
  std::string type;
  std::set<std::string> labels;
};
std::map<std::string, Documented> TableOfTheDocument() {
  std::ifstream file(HUSK_SOURCE_DIRECTORY "/docs/metrics.md");
  std::map<std::string, Documented> families;
  static const std::regex kRow(R"(^\| `((?:husk|process)_\w+)` \| (\w+) \|([^|]*)\|.*)");
  static const std::regex kLabel("`(\\w+)`");
  for (std::string line; std::getline(file, line);) {
    std::smatch row;
    if (!std::regex_match(line, row, kRow)) continue;
    Documented& family = families[row[1]];
    family.type = row[2];
    const std::string labels = row[3];
    for (std::sregex_iterator label(labels.begin(), labels.end(), kLabel), end; label != end; ++label) {
      family.labels.insert((*label)[1]);
    }
  }
  return families;
}

class MetricsTest : public testing::Test {
 protected:
  MetricsTest() { metrics_.SetBuild({.version = "0.1.0", .qemu_version = "7.2", .accelerator = "tcg"}); }
  std::string Text() { return metrics_.Text({.lanes = &lanes_, .runtime = &runtime_, .events = &events_}); }
  // Everything that can be told, once.
  void TellAll() {
    metrics_.OnCall("Version", absl::StatusCode::kOk, std::chrono::milliseconds(2));
    metrics_.OnCall("RunPodSandbox", absl::StatusCode::kUnavailable, std::chrono::seconds(3));
    metrics_.OnPull(true, 1000, std::chrono::seconds(2));
    metrics_.OnPull(false, 24, std::chrono::seconds(1));
    metrics_.OnBootStep(sandbox::BootStep::kAgent, std::chrono::milliseconds(700), true);
    metrics_.OnBootStep(sandbox::BootStep::kVm, std::chrono::milliseconds(70), false);
    metrics_.OnPodReady(std::chrono::seconds(1));
    metrics_.OnLogged(100);
    metrics_.OnLogged(11);
    metrics_.OnContainerExit("OOMKilled");
    metrics_.OnContainerExit("what is this");
    metrics_.OnResize(sandbox::ResizeDirection::kGrow, sandbox::ResizeResult::kOk);
    metrics_.OnResize(sandbox::ResizeDirection::kShrink, sandbox::ResizeResult::kOwed);
    metrics_.OnResize(sandbox::ResizeDirection::kShrink, sandbox::ResizeResult::kOwed);
    metrics_.OnAgentCall("Poll", std::chrono::seconds(5), absl::OkStatus());
    metrics_.OnAgentCall("StartContainer", std::chrono::milliseconds(4), absl::OkStatus());
  }

  Metrics metrics_;
  Lanes lanes_{LaneLimitsByClass()};
  FakeRuntime runtime_;
  sandbox::EventHub events_;
};

TEST_F(MetricsTest, CountsWhatItIsTold) {
  TellAll();
  const std::string text = Text();
  for (const char* line : {R"(husk_calls_total{code="OK",method="Version"} 1)",
                           R"(husk_calls_total{code="UNAVAILABLE",method="RunPodSandbox"} 1)",
                           R"(husk_call_seconds_bucket{method="RunPodSandbox",le="2.5"} 0)",
                           R"(husk_call_seconds_bucket{method="RunPodSandbox",le="5"} 1)",
                           R"(husk_call_seconds_sum{method="RunPodSandbox"} 3)",
                           R"(husk_pulls_total{result="ok"} 1)",
                           R"(husk_pulls_total{result="failed"} 1)",
                           "husk_pull_bytes_total 1024",
                           "husk_pull_seconds_count 2",
                           R"(husk_boot_step_seconds_count{step="agent"} 1)",
                           R"(husk_boot_step_seconds_count{step="turn"} 0)",
                           R"(husk_boot_step_failures_total{step="vm"} 1)",
                           R"(husk_boot_step_failures_total{step="agent"} 0)",
                           "husk_pod_start_seconds_count 1",
                           "husk_container_log_bytes_total 111",
                           "husk_oom_kills_total 1",
                           R"(husk_container_exits_total{reason="OOMKilled"} 1)",
                           R"(husk_container_exits_total{reason="Unknown"} 1)",
                           R"(husk_resizes_total{direction="grow",result="ok"} 1)",
                           R"(husk_resizes_total{direction="grow",result="failed"} 0)",
                           R"(husk_resizes_total{direction="shrink",result="ok"} 0)",
                           R"(husk_resizes_total{direction="shrink",result="owed"} 2)",
                           R"(husk_agent_calls_total{code="OK",method="Poll"} 1)",
                           R"(husk_agent_call_seconds_count{method="StartContainer"} 1)",
                           R"(husk_build_info{accelerator="tcg",qemu="7.2",version="0.1.0"} 1)"}) {
    EXPECT_THAT(text, HasSubstr(std::string(line) + "\n"));
  }
  EXPECT_THAT(text, Not(HasSubstr(R"(husk_agent_call_seconds_count{method="Poll"})")));
}

TEST_F(MetricsTest, ReadsStatesQueuesAndListeners) {
  const Context context = Context::Background();
  sandbox::PodConfig pod;
  pod.metadata.name = "web";
  ASSERT_TRUE(runtime_.RunPod(context, pod).ok());
  sandbox::ContainerConfig container;
  container.metadata.name = "main";
  ASSERT_TRUE(runtime_.CreateContainer(context, "pod-of-web", container).ok());
  const auto subscription = events_.Subscribe([] {});
  ASSERT_TRUE(subscription.ok());
  events_.Publish({.id = "c", .pod = {}, .containers = {}});
  ASSERT_TRUE(lanes_.Submit(LaneClass::kExec, [] {}).ok());
  lanes_.Drain();
  const std::string text = Text();
  for (const char* line :
       {R"(husk_pods{state="ready"} 1)", R"(husk_pods{state="notready"} 0)", R"(husk_containers{state="created"} 1)",
        R"(husk_containers{state="running"} 0)", "husk_events_total 1", "husk_event_subscribers 1",
        "husk_event_subscribers_cut_off_total 0", R"(husk_lane_accepted_total{lane="exec"} 1)",
        R"(husk_lane_finished_total{lane="exec"} 1)", R"(husk_lane_queued{lane="vm"} 0)"}) {
    EXPECT_THAT(text, HasSubstr(std::string(line) + "\n"));
  }
  EXPECT_THAT(text, Not(HasSubstr("web"))) << "names of pods are in no label";
}

TEST_F(MetricsTest, AddsVmsUp) {
  runtime_.vms = {{.memory_bytes = 300,
                   .requested_memory_bytes = 200,
                   .wanted_memory_bytes = 100,
                   .used_memory_bytes = 50,
                   .vcpus = 4,
                   .online_vcpus = 2,
                   .wanted_vcpus = 1,
                   .resizing = true},
                  {.memory_bytes = 1000,
                   .requested_memory_bytes = 1000,
                   .wanted_memory_bytes = 1000,
                   .used_memory_bytes = std::nullopt,
                   .vcpus = 1,
                   .online_vcpus = 1,
                   .wanted_vcpus = 1,
                   .resizing = false}};
  const std::string text = Text();
  for (const char* line :
       {R"(husk_vm_memory_bytes{kind="wanted"} 1100)", R"(husk_vm_memory_bytes{kind="requested"} 1200)",
        R"(husk_vm_memory_bytes{kind="actual"} 1300)", R"(husk_vm_memory_bytes{kind="used"} 50)",
        R"(husk_vm_vcpus{kind="wanted"} 2)", R"(husk_vm_vcpus{kind="plugged"} 5)", R"(husk_vm_vcpus{kind="online"} 3)",
        "husk_vms_resizing 1"}) {
    EXPECT_THAT(text, HasSubstr(std::string(line) + "\n"));
  }
}

TEST_F(MetricsTest, TheDocumentsTableAndTheEndpointAgree) {
  TellAll();
  const std::string text = Text();
  const auto families = Families(text);
  const auto documented = TableOfTheDocument();
  ASSERT_GT(documented.size(), 20U);
  for (const auto& [name, type] : families) {
    const auto row = documented.find(name);
    if (row == documented.end()) {
      ADD_FAILURE() << name << " is not in docs/metrics.md";
      continue;
    }
    EXPECT_EQ(row->second.type, type) << name;
  }
  for (const auto& [name, row] : documented) EXPECT_TRUE(families.contains(name)) << name << " is not served";

  static const std::regex kSample(R"(^(\w+?)(_bucket|_sum|_count)?(?:\{(.*)\})? \S+$)");
  static const std::regex kLabel(R"re((\w+)="[^"]*")re");
  for (const std::string& line : Lines(text)) {
    if (line.empty() || line.front() == '#') continue;
    std::smatch sample;
    ASSERT_TRUE(std::regex_match(line, sample, kSample)) << line;
    std::string name = sample[1];
    if (!documented.contains(name)) name += sample[2];
    ASSERT_TRUE(documented.contains(name)) << line;
    std::set<std::string> labels;
    const std::string text_of_labels = sample[3];
    for (std::sregex_iterator label(text_of_labels.begin(), text_of_labels.end(), kLabel), end; label != end; ++label) {
      if ((*label)[1] != "le") labels.insert((*label)[1]);
    }
    EXPECT_EQ(labels, documented.at(name).labels) << line;
  }
}

TEST_F(MetricsTest, NamesFollowPrometheus) {
  TellAll();
  for (const auto& [name, type] : Families(Text())) {
    EXPECT_EQ(absl::EndsWith(name, "_total"), type == "counter") << name << " is a " << type;
    EXPECT_TRUE(type != "histogram" || absl::EndsWith(name, "_seconds")) << name;
  }
}

}  // namespace
}  // namespace husk::cri
