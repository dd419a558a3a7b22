// What the tests with real QEMUs share: a directory of their own, VMs in it, and what /proc says of a process.
#ifndef HUSK_HYPERVISOR_QEMU_E2E_FIXTURE_H_
#define HUSK_HYPERVISOR_QEMU_E2E_FIXTURE_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "agent/common/context.h"
#include "hypervisor/qemu/io_thread.h"
#include "hypervisor/qemu/qemu_hypervisor.h"
#include "hypervisor/qemu/qmp_client.h"
#include "hypervisor/qemu/state_files.h"

namespace husk::hypervisor {

namespace fs = std::filesystem;

inline constexpr uid_t kUser = 200'123;
inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

inline std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// "CapEff" -> "0000000000000000", of /proc/PID/status.
inline std::map<std::string, std::string> StatusOf(pid_t pid) {
  std::map<std::string, std::string> members;
  std::istringstream lines(ReadText(absl::StrCat("/proc/", pid, "/status")));
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.find(":\t");
    if (colon != std::string::npos) members[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return members;
}

inline std::string LinkOf(const std::string& path) {
  std::error_code error;
  return fs::read_symlink(path, error).string();
}

class HypervisorQemuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    std::string pattern = (fs::temp_directory_path() / "husk-qemu-e2e-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    hypervisor_ = NewHypervisor();
  }

  void TearDown() override {
    for (const auto& directory : state_directories_) {
      EXPECT_TRUE(NewHypervisor()->Destroy(context_, directory).ok());
    }
    hypervisor_.reset();
    fs::remove_all(root_);
  }

  static QemuOptions Options() { return {.launcher_binary = HUSK_VM_LAUNCHER, .accelerator = Accelerator::kTcg}; }

  static std::unique_ptr<Hypervisor> NewHypervisor(const QemuOptions& options = Options()) {
    auto hypervisor = NewQemuHypervisor(options);
    EXPECT_TRUE(hypervisor.ok()) << hypervisor.status();
    return std::move(*hypervisor);
  }

  std::string MakeFile(const std::string& name, const std::string& text, std::uint64_t length = 0) {
    const std::string path = root_ + "/" + name;
    std::ofstream(path) << text;
    if (length != 0) fs::resize_file(path, length);
    return path;
  }

  VmConfig Config(const std::string& id, const std::string& below = "") {
    const std::string directory = root_ + below + "/" + id;
    fs::create_directories(directory);
    fs::permissions(directory, fs::perms::owner_all);
    state_directories_.push_back(directory);
    return {.id = id,
            .vcpus = 1,
            .maximum_vcpus = 4,
            .memory_bytes = 128 * kMiB,
            .maximum_memory_bytes = 1024 * kMiB,
            .user = kUser,
            .group = kUser,
            .state_directory = directory,
            .scratch = {.extents = {{.path = MakeFile(id + ".scratch", "", 8 * kMiB), .length = 8 * kMiB}},
                        .read_only = false}};
  }

  std::unique_ptr<Vm> MustStart(VmConfig config) {
    auto vm = hypervisor_->Start(context_, std::move(config));
    EXPECT_TRUE(vm.ok()) << vm.status();
    return vm.ok() ? std::move(*vm) : nullptr;
  }

  pid_t PidOf(Vm& vm) {
    const auto information = vm.Information(context_);
    EXPECT_TRUE(information.ok()) << information.status();
    return information.ok() ? information->process.pid : 0;
  }

  // One QMP command on a connection of the test's own. The Vm object must be gone: QEMU talks to one client at a time.
  nlohmann::json Query(const std::string& state_directory, const std::string& command,
                       const nlohmann::json& arguments = nullptr) {
    IoThread io_thread;
    const auto directory = OpenStateDirectory(state_directory);
    auto socket = ConnectIn(context_, directory->get(), kQmpSocket);
    EXPECT_TRUE(socket.ok()) << socket.status();
    const auto qmp = QmpClient::Connect(context_, io_thread, std::move(*socket), nullptr);
    EXPECT_TRUE(qmp.ok()) << qmp.status();
    auto reply = (*qmp)->Execute(context_, command, arguments);
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? *reply : nlohmann::json();
  }

  const Context context_ = Context::Background("e2e").WithTimeout(std::chrono::minutes(4));
  std::string root_;
  std::vector<std::string> state_directories_;
  std::unique_ptr<Hypervisor> hypervisor_;
};

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_E2E_FIXTURE_H_
