#include "cri/huskctl/support.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace husk::huskctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

void Add(api::ListContainersResponse& all, const std::string& id, const std::string& pod, const std::string& name,
         std::uint32_t attempt = 0) {
  api::Container* container = all.add_containers();
  container->set_id(id);
  container->set_pod_sandbox_id("pod-" + pod);
  container->mutable_metadata()->set_name(name);
  container->mutable_metadata()->set_attempt(attempt);
  (*container->mutable_labels())["io.kubernetes.pod.name"] = pod;
}

class ChooseContainerTest : public ::testing::Test {
 protected:
  ChooseContainerTest() {
    Add(all_, "aa11", "web", "main", 0);
    Add(all_, "aa22", "web", "main", 2);
    Add(all_, "bb33", "web", "main", 1);
    Add(all_, "cc44", "web", "side");
    Add(all_, "dd55", "mail", "side");
  }
  [[nodiscard]] std::string IdOf(const std::string& name) const {
    const auto chosen = ChooseContainer(all_, name);
    return chosen.ok() ? chosen->id() : std::string(chosen.status().message());
  }
  api::ListContainersResponse all_;
};

TEST_F(ChooseContainerTest, OfSeveralAttemptsTheNewest) {
  EXPECT_EQ(IdOf("main"), "aa22");
  EXPECT_EQ(IdOf("web/main"), "aa22");
  // By its id an older one too.
  EXPECT_EQ(IdOf("aa11"), "aa11");
  EXPECT_EQ(IdOf("bb"), "bb33");
}

TEST_F(ChooseContainerTest, WhatFitsSeveralIsRefusedWithThem) {
  EXPECT_THAT(IdOf("side"), AllOf(HasSubstr("fits several"), HasSubstr("web/side (cc44)"),
                                  HasSubstr("mail/side (dd55)"), Not(HasSubstr("main"))));
  EXPECT_EQ(IdOf("mail/side"), "dd55");
}

TEST_F(ChooseContainerTest, WhatIsNotThereIsRefusedWithWhatIs) {
  EXPECT_THAT(IdOf("nobody"), AllOf(HasSubstr("no container \"nobody\""), HasSubstr("web/side (cc44)")));
  EXPECT_THAT(std::string(ChooseContainer({}, "x").status().message()), HasSubstr("there are none"));
}

}  // namespace
}  // namespace husk::huskctl
