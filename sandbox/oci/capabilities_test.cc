#include "sandbox/oci/capabilities.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace husk::sandbox {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Not;

TEST(Capabilities, FourteenByDefault) {
  EXPECT_EQ(ContainerCapabilities({}, {})->size(), 14U);
}

TEST(Capabilities, AddAndDropByAnySpelling) {
  const auto capabilities = ContainerCapabilities({"net_admin", "CAP_SYS_TIME"}, {"Chown"});
  EXPECT_THAT(*capabilities, Contains("CAP_NET_ADMIN"));
  EXPECT_THAT(*capabilities, Contains("CAP_SYS_TIME"));
  EXPECT_THAT(*capabilities, Not(Contains("CAP_CHOWN")));
}

TEST(Capabilities, DropAllThenAdd) {
  EXPECT_THAT(*ContainerCapabilities({"NET_BIND_SERVICE"}, {"ALL"}), ElementsAre("CAP_NET_BIND_SERVICE"));
}

TEST(Capabilities, AddAllThenDrop) {
  const auto capabilities = ContainerCapabilities({"ALL"}, {"SYS_ADMIN"});
  EXPECT_EQ(capabilities->size(), AllCapabilities().size() - 1);
  EXPECT_THAT(*capabilities, Not(Contains("CAP_SYS_ADMIN")));
}

TEST(Capabilities, AnUnknownOneIsNamed) {
  EXPECT_EQ(ContainerCapabilities({"FLY"}, {}).status(), absl::InvalidArgumentError("unknown capability \"FLY\""));
  EXPECT_FALSE(ContainerCapabilities({}, {"FLY"}).ok());
  EXPECT_FALSE(NamedCapabilities({"CAP_"}).ok());
}

}  // namespace
}  // namespace husk::sandbox
