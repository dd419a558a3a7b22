#include "cri/config/installation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace husk::cri {
namespace {

using testing::HasSubstr;

class Installation : public testing::Test {
 protected:
  Installation() {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-installation-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    prefix_ = pattern;
  }
  ~Installation() override { std::filesystem::remove_all(prefix_); }
  std::string Make(const std::string& name) const {
    std::filesystem::create_directories((prefix_ / name).parent_path());
    std::ofstream(prefix_ / name) << "x";
    return prefix_ / name;
  }
  [[nodiscard]] std::string bin() const { return prefix_ / "bin"; }

 private:
  std::filesystem::path prefix_;
};

TEST_F(Installation, IsFoundInABuildTree) {
  const std::string launcher = Make("bin/husk-vm-launcher");
  const std::string kernel = Make("guest/kernel");
  const std::string initrd = Make("guest/initrd");
  Config config;
  ASSERT_TRUE(CompleteInstallation(bin(), &config).ok());
  EXPECT_EQ(config.vm.launcher, launcher);
  EXPECT_EQ(config.vm.kernel, kernel);
  EXPECT_EQ(config.vm.initrd, initrd);
}

TEST_F(Installation, IsFoundBelowAPrefix) {
  Make("bin/huskd");
  const std::string launcher = Make("libexec/husk/husk-vm-launcher");
  const std::string kernel = Make("libexec/husk/kernel");
  Make("libexec/husk/initrd");
  Config config;
  ASSERT_TRUE(CompleteInstallation(bin(), &config).ok());
  EXPECT_EQ(config.vm.launcher, launcher);
  EXPECT_EQ(config.vm.kernel, kernel);
}

TEST_F(Installation, WhatIsConfiguredWinsAndMustExist) {
  Make("bin/husk-vm-launcher");
  Make("guest/kernel");
  Make("guest/initrd");
  Config config;
  config.vm.kernel = Make("elsewhere/vmlinux");
  ASSERT_TRUE(CompleteInstallation(bin(), &config).ok());
  EXPECT_THAT(config.vm.kernel, HasSubstr("elsewhere"));
  config.vm.kernel = "/nonexistent/vmlinux";
  const Status missing = CompleteInstallation(bin(), &config);
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("vm.kernel names /nonexistent/vmlinux"));
}

TEST_F(Installation, WhatIsMissingIsNamedWithItsRemedy) {
  Make("bin/husk-vm-launcher");
  Config config;
  const std::string message(CompleteInstallation(bin(), &config).message());
  EXPECT_THAT(message, HasSubstr("no guest kernel"));
  EXPECT_THAT(message, HasSubstr("guest/kernel"));
  EXPECT_THAT(message, HasSubstr("libexec/husk/kernel"));
  EXPECT_THAT(message, HasSubstr("vm.kernel"));
}

}  // namespace
}  // namespace husk::cri
