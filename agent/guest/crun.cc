#include "agent/guest/crun.h"

#include <csignal>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/guest/console_socket.h"
#include "agent/guest/files.h"
#include "agent/guest/text.h"

namespace husk::agent {
namespace {

// crun takes half a second under emulation; one that hangs must not hang its container for ever.
constexpr auto kPatience = std::chrono::seconds(120);
constexpr std::size_t kMaximumWords = 4096;

// The message out of crun's log, whose lines may carry time and level.
std::string LastWords(const std::string& log_file, int exit_code) {
  auto log = ReadFile(log_file, kMaximumWords);
  std::string words(log.ok() ? Trim(*log) : "");
  if (words.empty()) words = absl::StrCat("crun ended with ", exit_code);
  return words;
}

}  // namespace

struct Crun::Launch {
  std::vector<std::string> argv;
  std::string files;  // prefix of the names of its files
  bool terminal = false;
  ProcessIo::ChildEnds ends;
  OnStarted on_started;
  Children::Memory memory;
  std::optional<ConsoleSocket> console;
  EventLoop::TimerId timer;

  Launch() = default;
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;
  ~Launch() {
    for (const char* suffix : {".pid", ".log", ".json"}) unlink((files + suffix).c_str());
  }
};

Crun::Crun(EventLoop& loop, Children& children, std::string program, std::string state)
    : loop_(loop), children_(children), program_(std::move(program)), state_(std::move(state)) {}

std::shared_ptr<Crun::Launch> Crun::NewLaunch(bool terminal, ProcessIo::ChildEnds ends, OnStarted on_started) {
  auto launch = std::make_shared<Launch>();
  launch->files = absl::StrCat(state_, "/", ++launches_);
  launch->terminal = terminal;
  launch->ends = std::move(ends);
  launch->on_started = std::move(on_started);
  launch->argv = {program_, "--root", state_ + "/crun", "--cgroup-manager=cgroupfs", "--log", launch->files + ".log"};
  return launch;
}

void Crun::Run(const std::string& id, const std::string& bundle, bool terminal, ProcessIo::ChildEnds ends,
               OnStarted on_started) {
  const auto launch = NewLaunch(terminal, std::move(ends), std::move(on_started));
  auto& argv = launch->argv;
  argv.insert(argv.end(), {"run", "--detach", "--bundle", bundle, "--pid-file", launch->files + ".pid"});
  if (terminal) argv.insert(argv.end(), {"--console-socket", launch->files + ".tty"});
  argv.push_back(id);
  Start(launch);
}

void Crun::Exec(const std::string& id, const std::string& cgroup, std::string_view process_json, bool terminal,
                ProcessIo::ChildEnds ends, OnStarted on_started) {
  const auto launch = NewLaunch(terminal, std::move(ends), std::move(on_started));
  if (const Status written = CreateFile(launch->files + ".json", process_json, 0600); !written.ok()) {
    launch->on_started(written);
    return;
  }
  auto& argv = launch->argv;
  argv.insert(argv.end(), {"exec", "--detach", "--cgroup=" + cgroup, "--process", launch->files + ".json", "--pid-file",
                           launch->files + ".pid"});
  if (terminal) argv.insert(argv.end(), {"--console-socket", launch->files + ".tty"});
  argv.push_back(id);
  Start(launch);
}

void Crun::Start(const std::shared_ptr<Launch>& launch) {
  launch->memory = children_.RememberExits();
  if (launch->terminal) {
    auto console = ConsoleSocket::Listen(launch->files + ".tty");
    if (!console.ok()) {
      launch->on_started(console.status());
      return;
    }
    launch->console.emplace(*std::move(console));
  }
  const auto pid = children_.Start({.argv = launch->argv,
                                    .standard_input = launch->ends.standard_input.get(),
                                    .standard_output = launch->ends.standard_output.get(),
                                    .standard_error = launch->ends.standard_error.get(),
                                    .directory = ""},
                                   [this, launch](int exit_code) { Ended(launch, exit_code); });
  // The child has them; ours would keep the streams from ending.
  launch->ends = {};
  if (!pid.ok()) {
    launch->on_started(pid.status());
    return;
  }
  launch->timer = loop_.After(kPatience, [pid = *pid] { kill(pid, SIGKILL); });
}

void Crun::Ended(const std::shared_ptr<Launch>& launch, int exit_code) {
  loop_.Cancel(launch->timer);
  if (exit_code != 0) {
    launch->on_started(absl::FailedPreconditionError(LastWords(launch->files + ".log", exit_code)));
    return;
  }
  Started started;
  const auto pid = ReadFile(launch->files + ".pid", 32);
  if (!pid.ok() || !ParseNumber(*pid, started.pid) || started.pid <= 1) {
    launch->on_started(absl::InternalError("crun told no pid"));
    return;
  }
  if (launch->terminal) {
    // crun sent it before it ended.
    auto master = launch->console->Receive();
    if (!master.ok()) {
      kill(started.pid, SIGKILL);
      launch->on_started(master.status());
      return;
    }
    started.terminal = *std::move(master);
  }
  launch->on_started(std::move(started));
}

void Crun::Delete(const std::string& id, const std::function<void(Status)>& done) {
  if (access((state_ + "/crun/" + id).c_str(), F_OK) != 0) {
    done(absl::OkStatus());
    return;
  }
  const std::string log = absl::StrCat(state_, "/", ++launches_, ".log");
  const auto started = children_.Start({.argv = {program_, "--root", state_ + "/crun", "--cgroup-manager=cgroupfs",
                                                 "--log", log, "delete", "--force", id}},
                                       [log, done](int exit_code) {
                                         const std::string words = exit_code == 0 ? "" : LastWords(log, exit_code);
                                         unlink(log.c_str());
                                         done(exit_code == 0 ? absl::OkStatus() : absl::InternalError(words));
                                       });
  if (!started.ok()) done(started.status());
}

}  // namespace husk::agent
