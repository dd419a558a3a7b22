#include "cri/convert/security.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

namespace husk::cri {
namespace {

namespace api = ::runtime::v1;
using sandbox::SeccompKind;
using testing::StartsWith;

class ConvertSecurity : public testing::Test {
 protected:
  StatusOr<sandbox::SecurityContext> Convert() { return SecurityFromProto(context_, "f"); }
  std::string Refusal() { return std::string(Convert().status().message()); }
  void Expect(SeccompKind kind, const std::string& path = "") {
    const auto converted = Convert();
    ASSERT_TRUE(converted.ok()) << converted.status();
    EXPECT_EQ(converted->seccomp.kind, kind);
    EXPECT_EQ(converted->seccomp.path, path);
  }
  void SetSeccomp(api::SecurityProfile::ProfileType type, const std::string& reference = "") {
    context_.mutable_seccomp()->set_profile_type(type);
    context_.mutable_seccomp()->set_localhost_ref(reference);
  }

  api::LinuxContainerSecurityContext context_;
};

TEST_F(ConvertSecurity, SeccompProfilesByTheirNewField) {
  Expect(SeccompKind::kUnconfined);
  SetSeccomp(api::SecurityProfile::RuntimeDefault);
  Expect(SeccompKind::kRuntimeDefault);
  SetSeccomp(api::SecurityProfile::Unconfined);
  Expect(SeccompKind::kUnconfined);
  SetSeccomp(api::SecurityProfile::Localhost, "/var/lib/kubelet/seccomp/a.json");
  Expect(SeccompKind::kLocalhost, "/var/lib/kubelet/seccomp/a.json");
  SetSeccomp(api::SecurityProfile::Localhost, "localhost//srv/a.json");
  Expect(SeccompKind::kLocalhost, "/srv/a.json");
  // It wins over the old one, which says the same or nothing.
  context_.set_seccomp_profile_path("unconfined");
  Expect(SeccompKind::kLocalhost, "/srv/a.json");
}

TEST_F(ConvertSecurity, SeccompProfilesByTheirOldField) {
  for (const char* words : {"", "unconfined"}) {
    context_.set_seccomp_profile_path(words);
    Expect(SeccompKind::kUnconfined);
  }
  for (const char* words : {"runtime/default", "docker/default"}) {
    context_.set_seccomp_profile_path(words);
    Expect(SeccompKind::kRuntimeDefault);
  }
  context_.set_seccomp_profile_path("localhost//etc/x.json");
  Expect(SeccompKind::kLocalhost, "/etc/x.json");
}

TEST_F(ConvertSecurity, WhatIsNoProfileIsRefusedByName) {
  for (const char* words : {"localhost/", "localhost/relative.json", "Unconfined"}) {
    context_.set_seccomp_profile_path(words);
    EXPECT_THAT(Refusal(), StartsWith("f.seccomp_profile_path: ")) << words;
  }
  for (const char* reference : {"", "relative.json", "localhost/"}) {
    SetSeccomp(api::SecurityProfile::Localhost, reference);
    EXPECT_THAT(Refusal(), StartsWith("f.seccomp.localhost_ref: ")) << reference;
  }
  SetSeccomp(static_cast<api::SecurityProfile::ProfileType>(7));
  EXPECT_THAT(Refusal(), StartsWith("f.seccomp.profile_type: "));
}

TEST_F(ConvertSecurity, TheGuestHasNeitherAppArmorNorSelinux) {
  context_.mutable_apparmor()->set_profile_type(api::SecurityProfile::RuntimeDefault);
  EXPECT_TRUE(Convert().ok());
  context_.set_apparmor_profile("localhost/mine");
  EXPECT_THAT(Refusal(), StartsWith("f.apparmor_profile: "));
  EXPECT_EQ(Convert().status().code(), absl::StatusCode::kUnimplemented);
  context_.clear_apparmor_profile();
  context_.mutable_apparmor()->set_profile_type(api::SecurityProfile::Localhost);
  EXPECT_THAT(Refusal(), StartsWith("f.apparmor: "));
  context_.clear_apparmor();
  context_.mutable_selinux_options()->set_level("s0");
  EXPECT_THAT(Refusal(), StartsWith("f.selinux_options: "));
}

TEST_F(ConvertSecurity, PoliciesOfSupplementalGroups) {
  context_.add_supplemental_groups(7);
  EXPECT_FALSE(Convert()->user.strict_supplemental_groups);
  context_.set_supplemental_groups_policy(api::Strict);
  EXPECT_TRUE(Convert()->user.strict_supplemental_groups);
  context_.set_supplemental_groups_policy(static_cast<api::SupplementalGroupsPolicy>(9));
  EXPECT_THAT(Refusal(), StartsWith("f.supplemental_groups_policy: "));
}

TEST_F(ConvertSecurity, UsersOutOfRangeAreRefusedByName) {
  for (const std::int64_t id : {std::int64_t{-1}, std::int64_t{1} << 31, std::numeric_limits<std::int64_t>::max()}) {
    context_.mutable_run_as_user()->set_value(id);
    EXPECT_THAT(Refusal(), StartsWith("f.run_as_user: "));
  }
  context_.clear_run_as_user();
  context_.mutable_run_as_group()->set_value(0);
  EXPECT_THAT(Refusal(), StartsWith("f.run_as_group: "));
  context_.set_run_as_username("bob");
  EXPECT_TRUE(Convert().ok());
}

TEST_F(ConvertSecurity, TheResolvedUserIsShown) {
  api::ContainerUser shown;
  UserToProto({.uid = 1, .gid = 2, .supplemental_gids = {2, 3}}, &shown);
  EXPECT_EQ(shown.linux().uid(), 1);
  EXPECT_EQ(shown.linux().gid(), 2);
  EXPECT_THAT(shown.linux().supplemental_groups(), testing::ElementsAre(2, 3));
}

}  // namespace
}  // namespace husk::cri
