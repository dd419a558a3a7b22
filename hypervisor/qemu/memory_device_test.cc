#include "hypervisor/qemu/memory_device.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace husk::hypervisor {
namespace {

std::optional<std::uint64_t> Told(const char* name, const char* data) {
  return PluggedMemoryOf({.name = name, .data = nlohmann::json::parse(data)});
}

TEST(MemoryDevice, ItsSizeIsToldByTheEventOfItsName) {
  constexpr auto kName = "MEMORY_DEVICE_SIZE_CHANGE";
  EXPECT_EQ(Told(kName, R"({"id": "memory", "size": 4194304, "qom-path": "/machine/peripheral/memory"})"), 4194304U);
  EXPECT_EQ(Told(kName, R"({"id": "memory", "size": 0})"), 0U);
  EXPECT_FALSE(Told("BALLOON_CHANGE", R"({"id": "memory", "size": 4194304})"));
  for (const char* data : {"{}", "[]", R"({"id": "other", "size": 1})", R"({"size": 1})", R"({"id": "memory"})",
                           R"({"id": "memory", "size": -1})", R"({"id": 7, "size": "1"})"}) {
    EXPECT_FALSE(Told(kName, data)) << data;
  }
}

}  // namespace
}  // namespace husk::hypervisor
