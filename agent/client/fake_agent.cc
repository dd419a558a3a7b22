#include "agent/client/fake_agent.h"

#include <chrono>
#include <utility>

#include "agent/client/fake_client.h"
#include "agent/client/fake_guest_state.h"

namespace husk::agent {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);

}  // namespace

FakeGuest::FakeGuest() : state_(std::make_unique<State>()) {}
FakeGuest::~FakeGuest() = default;

void FakeGuest::SetContainerProgram(std::function<FakeProgram(const v1::ContainerSpec&)> program) {
  const MutexLock lock(state_->mutex);
  state_->container_program = std::move(program);
}

void FakeGuest::SetExecProgram(std::function<FakeProgram(const v1::ExecRequest&)> program) {
  const MutexLock lock(state_->mutex);
  state_->exec_program = std::move(program);
}

bool FakeGuest::Write(const std::string& container_id, const std::string& exec_id, v1::StreamKind kind,
                      const std::string& data) {
  const MutexLock lock(state_->mutex);
  FakeProcess* process = state_->Find(container_id, exec_id);
  if (process == nullptr || process->status.state() == v1::CREATED || process->stream(kind).closed) return false;
  process->stream(kind).bytes += data;
  state_->changed.NotifyAll();
  return true;
}

bool FakeGuest::Exit(const std::string& container_id, const std::string& exec_id, std::int32_t exit_code,
                     bool oom_killed, bool close_streams) {
  const MutexLock lock(state_->mutex);
  FakeProcess* process = state_->Find(container_id, exec_id);
  if (process == nullptr || process->status.state() != v1::RUNNING) return false;
  State::End(*process, exit_code, oom_killed, close_streams);
  state_->changed.NotifyAll();
  return true;
}

bool FakeGuest::CloseStreams(const std::string& container_id, const std::string& exec_id) {
  const MutexLock lock(state_->mutex);
  FakeProcess* process = state_->Find(container_id, exec_id);
  if (process == nullptr) return false;
  process->standard_output.closed = process->standard_error.closed = true;
  state_->changed.NotifyAll();
  return true;
}

void FakeGuest::FailNext(const std::string& method, const Status& status, int times) {
  const MutexLock lock(state_->mutex);
  state_->faults.emplace_back(method, FakeFault{.status = status, .times = times});
}

void FakeGuest::FailNextAfterEffect(const std::string& method, const Status& status) {
  const MutexLock lock(state_->mutex);
  state_->faults.emplace_back(method, FakeFault{.status = status, .times = 1, .after_effect = true});
}

void FakeGuest::Block(const std::string& method) {
  const MutexLock lock(state_->mutex);
  state_->blocked.insert(method);
}

void FakeGuest::Release(const std::string& method) {
  const MutexLock lock(state_->mutex);
  state_->blocked.erase(method);
  state_->changed.NotifyAll();
}

void FakeGuest::SetChannelDown(bool down) {
  const MutexLock lock(state_->mutex);
  state_->channel_down = down;
  state_->changed.NotifyAll();
}

void FakeGuest::Reboot() {
  const MutexLock lock(state_->mutex);
  ++state_->boot;
  state_->shut_down = false;
  state_->sandbox.reset();
  state_->containers.clear();
  state_->processes.clear();
  state_->changed.NotifyAll();
}

void FakeGuest::SetPollFilter(std::function<void(v1::PollResponse&)> filter) {
  const MutexLock lock(state_->mutex);
  state_->poll_filter = std::move(filter);
  state_->changed.NotifyAll();
}

std::vector<std::string> FakeGuest::calls() const {
  const MutexLock lock(state_->mutex);
  return state_->calls;
}

int FakeGuest::call_count(const std::string& method) const {
  const MutexLock lock(state_->mutex);
  return state_->counts[method];
}

bool FakeGuest::WaitForCalls(const std::string& method, int count) const {
  const auto until = Context::Clock::now() + kPatience;
  const MutexLock lock(state_->mutex);
  while (state_->counts[method] < count) {
    if (!state_->changed.WaitUntil(state_->mutex, until) && Context::Clock::now() >= until) return false;
  }
  return true;
}

std::optional<v1::SandboxConfig> FakeGuest::sandbox_config() const {
  const MutexLock lock(state_->mutex);
  return state_->sandbox;
}

std::vector<std::string> FakeGuest::container_ids() const {
  const MutexLock lock(state_->mutex);
  std::vector<std::string> ids;
  for (const auto& [id, spec] : state_->containers) ids.push_back(id);
  return ids;
}

std::optional<v1::ContainerSpec> FakeGuest::container_spec(const std::string& container_id) const {
  const MutexLock lock(state_->mutex);
  const auto found = state_->containers.find(container_id);
  return found == state_->containers.end() ? std::nullopt : std::optional(found->second);
}

std::vector<std::string> FakeGuest::exec_ids(const std::string& container_id) const {
  const MutexLock lock(state_->mutex);
  std::vector<std::string> ids;
  for (const auto& [key, process] : state_->processes) {
    if (key.first == container_id && !key.second.empty()) ids.push_back(key.second);
  }
  return ids;
}

std::optional<v1::ProcessStatus> FakeGuest::process(const std::string& container_id, const std::string& exec_id) const {
  const MutexLock lock(state_->mutex);
  const FakeProcess* process = state_->Find(container_id, exec_id);
  return process == nullptr ? std::nullopt : std::optional(process->status);
}

std::vector<std::uint32_t> FakeGuest::signals(const std::string& container_id, const std::string& exec_id) const {
  const MutexLock lock(state_->mutex);
  const FakeProcess* process = state_->Find(container_id, exec_id);
  return process == nullptr ? std::vector<std::uint32_t>() : process->signals;
}

std::string FakeGuest::received_stdin(const std::string& container_id, const std::string& exec_id) const {
  const MutexLock lock(state_->mutex);
  const FakeProcess* process = state_->Find(container_id, exec_id);
  return process == nullptr ? std::string() : process->standard_input;
}

std::string FakeGuest::updated_resources(const std::string& container_id) const {
  const MutexLock lock(state_->mutex);
  const auto found = state_->resources.find(container_id);
  return found == state_->resources.end() ? std::string() : found->second;
}

std::optional<v1::ResizeGuestRequest> FakeGuest::resized() const {
  const MutexLock lock(state_->mutex);
  return state_->resized;
}

std::vector<std::string> FakeGuest::volume_ids() const {
  const MutexLock lock(state_->mutex);
  std::vector<std::string> ids;
  for (const auto& [id, volume] : state_->volumes) ids.push_back(id);
  return ids;
}

std::optional<FakeVolume> FakeGuest::volume(const std::string& volume_id) const {
  const MutexLock lock(state_->mutex);
  const auto found = state_->volumes.find(volume_id);
  return found == state_->volumes.end() ? std::nullopt : std::make_optional(found->second);
}

void FakeGuest::WriteVolume(const std::string& volume_id, const std::string& path, const std::string& bytes) {
  const MutexLock lock(state_->mutex);
  state_->volumes[volume_id][path] = bytes;
}

void FakeGuest::SetMemoryNews(const v1::MemoryNews& news, std::uint64_t spare_bytes) {
  const MutexLock lock(state_->mutex);
  state_->memory = news;
  state_->spare_memory = spare_bytes;
  state_->changed.NotifyAll();
}

void FakeGuest::SetStats(const v1::StatsResponse& stats) {
  const MutexLock lock(state_->mutex);
  state_->stats = stats;
}

bool FakeGuest::shut_down() const {
  const MutexLock lock(state_->mutex);
  return state_->shut_down;
}

// ---- the connector --------------------------------------------------------------------------------------------------

FakeAgentConnector::FakeAgentConnector() = default;
FakeAgentConnector::~FakeAgentConnector() = default;

std::unique_ptr<AgentClient> FakeAgentConnector::Connect(const std::string& socket_path) {
  return std::make_unique<FakeAgentClient>(*guest(socket_path).state_);
}

FakeGuest& FakeAgentConnector::guest(const std::string& socket_path) {
  const MutexLock lock(mutex_);
  std::unique_ptr<FakeGuest>& guest = guests_[socket_path];
  if (!guest) {
    guest = std::make_unique<FakeGuest>();
    if (setup_) setup_(*guest);
  }
  return *guest;
}

std::vector<std::string> FakeAgentConnector::socket_paths() const {
  const MutexLock lock(mutex_);
  std::vector<std::string> paths;
  paths.reserve(guests_.size());
  for (const auto& [path, guest] : guests_) paths.push_back(path);
  return paths;
}

void FakeAgentConnector::SetGuestSetup(std::function<void(FakeGuest&)> setup) {
  const MutexLock lock(mutex_);
  setup_ = std::move(setup);
}

}  // namespace husk::agent
