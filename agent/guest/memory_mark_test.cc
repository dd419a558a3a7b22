// Against files that stand in for the kernel's; agent/guest/e2e has a kernel.
#include "agent/guest/memory_mark.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "agent/guest/files.h"

namespace husk::agent {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

class MemoryMarkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-mark-XXXXXX";
    base_ = mkdtemp(pattern.data());
    std::ofstream(base_ + "/memory.current") << 80 * kMiB;
    std::ofstream(base_ + "/memory.stat")
        << "anon 1\ninactive_file " << 20 * kMiB << "\nactive_file " << 10 * kMiB << "\n";
    std::ofstream(base_ + "/memory.high") << "max\n";
    std::ofstream(base_ + "/meminfo") << "MemTotal: 262144 kB\nMemAvailable: " << 100 * 1024 << " kB\n";
    places_ = {.cgroup = base_, .meminfo = base_ + "/meminfo"};
  }
  void TearDown() override { std::filesystem::remove_all(base_); }

  std::string base_;
  MemoryMark::Places places_;
};

TEST_F(MemoryMarkTest, CacheThatCanGoIsNotCountedTwice) {
  EXPECT_EQ(MarkBytes(places_), (80 - 30 + 100 - 32) * kMiB);
}

TEST_F(MemoryMarkTest, LessThanTheMarginIsNothing) {
  std::ofstream(base_ + "/meminfo") << "MemAvailable: 10 kB\n";
  std::ofstream(base_ + "/memory.current") << 40 * kMiB;
  EXPECT_EQ(MarkBytes(places_), 0U);
}

TEST_F(MemoryMarkTest, AKernelThatTellsOfNoPressureHasNoMark) {
  const auto loop = EventLoop::Create().value();
  MemoryMark mark(*loop, places_, [] {});
  mark.Set();
  EXPECT_FALSE(mark.mark_bytes());
  // A file that is none of the kernel's cannot be waited for.
  std::ofstream(base_ + "/memory.pressure") << "some avg10=0.00\n";
  mark.Set();
  EXPECT_FALSE(mark.mark_bytes());
  EXPECT_EQ(ReadFile(base_ + "/memory.high").value_or("?"), "max\n");
}

}  // namespace
}  // namespace husk::agent
