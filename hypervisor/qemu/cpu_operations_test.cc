#include "hypervisor/qemu/cpu_operations.h"

#include <gtest/gtest.h>

namespace husk::hypervisor {
namespace {

using nlohmann::json;

// As a parser gives them: what is not negative is unsigned.
json Slot(unsigned socket, const char* path = nullptr) {
  json slot{{"type", "max-x86_64-cpu"},
            {"vcpus-count", 1},
            {"props", {{"socket-id", socket}, {"core-id", 0}, {"thread-id", 0}}}};
  if (path != nullptr) slot["qom-path"] = path;
  return slot;
}

TEST(CpuOperations, SlotsComeByNumber) {
  // QEMU lists the last one first.
  const auto slots = ParseCpuSlots(json::array({Slot(2), Slot(1, "/machine/peripheral/vcpu1"), Slot(0, "/m/d[0]")}));
  ASSERT_TRUE(slots.ok()) << slots.status();
  ASSERT_EQ(slots->size(), 3U);
  EXPECT_EQ(slots->at(0).path, "/m/d[0]");
  EXPECT_EQ(slots->at(1).path, "/machine/peripheral/vcpu1");
  EXPECT_EQ(slots->at(2).path, "");
  EXPECT_EQ(slots->at(2).type, "max-x86_64-cpu");
  EXPECT_EQ(slots->at(2).place, (json{{"socket-id", 2}, {"core-id", 0}, {"thread-id", 0}}));
}

TEST(CpuOperations, NonsenseIsAnError) {
  EXPECT_TRUE(absl::IsInternal(ParseCpuSlots(json::object()).status()));
  EXPECT_TRUE(absl::IsInternal(ParseCpuSlots(json::array({1})).status()));
  json negative = Slot(0);
  negative["props"]["socket-id"] = -1;
  EXPECT_TRUE(absl::IsInternal(ParseCpuSlots(json::array({negative})).status()));
  EXPECT_TRUE(absl::IsInternal(ParseCpuSlots(json::array({Slot(0), Slot(2)})).status()));
  EXPECT_TRUE(absl::IsInternal(ParseCpuSlots(json::array({Slot(0), Slot(0)})).status()));
  json without = Slot(0);
  without.erase("type");
  EXPECT_TRUE(absl::IsInternal(ParseCpuSlots(json::array({without})).status()));
}

QmpEvent Ost(const char* kind, const char* slot, int source, int status) {
  return {.name = "ACPI_DEVICE_OST",
          .data = {{"info", {{"slot-type", kind}, {"slot", slot}, {"source", source}, {"status", status}}}}};
}

TEST(CpuOperations, ARefusalIsToldByAcpi) {
  EXPECT_TRUE(RefusesToEject(Ost("CPU", "2", 3, 1), 2));
  EXPECT_TRUE(RefusesToEject(Ost("CPU", "2", 0x103, 0x81), 2));
  EXPECT_FALSE(RefusesToEject(Ost("CPU", "1", 3, 1), 2)) << "another processor's";
  EXPECT_FALSE(RefusesToEject(Ost("DIMM", "2", 3, 1), 2));
  EXPECT_FALSE(RefusesToEject(Ost("CPU", "2", 1, 1), 2)) << "of an insertion";
  EXPECT_FALSE(RefusesToEject(Ost("CPU", "2", 3, 0), 2)) << "success";
  EXPECT_FALSE(RefusesToEject(Ost("CPU", "2", 0x103, 0x84), 2)) << "in progress";
  EXPECT_FALSE(RefusesToEject({.name = "ACPI_DEVICE_OST", .data = 7}, 2));
}

}  // namespace
}  // namespace husk::hypervisor
