#include "agent/guest/user_lookup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

namespace husk::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr const char* kPasswd =
    "# comment\n"
    "root:x:0:0:root:/root:/bin/sh\n"
    "broken line\n"
    "big:x:4294967296:1::/big:\n"
    "alice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
    "1234:x:77:78::/numeric:/bin/sh\n";
constexpr const char* kGroup =
    "root:x:0:\n"
    "alice:x:1001:alice\n"
    "wheel:x:10:bob,alice\n"
    "audio:x:29:alice,\n"
    "other:x:30:malice\n";

v1::User ImageUser(const std::string& text) {
  v1::User user;
  user.set_image_user(text);
  return user;
}

TEST(UserLookupTest, FindsNamesAndNumbers) {
  const auto root = ResolveUser(ImageUser(""), kPasswd, kGroup);
  ASSERT_TRUE(root.ok());
  EXPECT_EQ(root->uid, 0U);
  EXPECT_EQ(root->home, "/root");

  const auto alice = ResolveUser(ImageUser("alice"), kPasswd, kGroup);
  ASSERT_TRUE(alice.ok());
  EXPECT_EQ(alice->uid, 1000U);
  EXPECT_EQ(alice->gid, 1001U);
  EXPECT_THAT(alice->additional_gids, ElementsAre(10, 29));
  EXPECT_EQ(alice->home, "/home/alice");

  const auto by_number = ResolveUser(ImageUser("1000"), kPasswd, kGroup);
  ASSERT_TRUE(by_number.ok());
  EXPECT_EQ(by_number->gid, 1001U);
  EXPECT_THAT(by_number->additional_gids, ElementsAre(10, 29));

  const auto digits = ResolveUser(ImageUser("1234"), kPasswd, kGroup);
  ASSERT_TRUE(digits.ok());
  EXPECT_EQ(digits->uid, 77U) << "a name of digits wins";

  const auto absent = ResolveUser(ImageUser("4242:4343"), kPasswd, kGroup);
  ASSERT_TRUE(absent.ok());
  EXPECT_EQ(absent->uid, 4242U);
  EXPECT_EQ(absent->gid, 4343U);
  EXPECT_EQ(absent->home, "/");
}

TEST(UserLookupTest, ExplicitFieldsWin) {
  v1::User user = ImageUser("nobody-knows");
  user.set_uid(1000);
  user.add_supplemental_gids(500);
  user.add_supplemental_gids(10);
  auto resolved = ResolveUser(user, kPasswd, kGroup);
  ASSERT_TRUE(resolved.ok());
  EXPECT_EQ(resolved->gid, 1001U);
  EXPECT_THAT(resolved->additional_gids, ElementsAre(10, 29, 500));

  user.set_gid(10);
  user.set_strict_supplemental_groups(true);
  resolved = ResolveUser(user, kPasswd, kGroup);
  ASSERT_TRUE(resolved.ok());
  EXPECT_EQ(resolved->gid, 10U);
  EXPECT_THAT(resolved->additional_gids, ElementsAre(500)) << "strict, and the main group is not repeated";

  v1::User named = ImageUser("root");
  named.set_username("alice");
  resolved = ResolveUser(named, kPasswd, kGroup);
  ASSERT_TRUE(resolved.ok());
  EXPECT_EQ(resolved->uid, 1000U);

  const auto group = ResolveUser(ImageUser("root:wheel"), kPasswd, kGroup);
  ASSERT_TRUE(group.ok());
  EXPECT_EQ(group->gid, 10U);
}

TEST(UserLookupTest, RefusesWhatIsNotThereOrTooLarge) {
  for (const char* text :
       {"mallory", "big", "root:nogroup", "-1", "2147483648", "99999999999999999999", "0:-5", "0:4294967296", "+-1"}) {
    const auto resolved = ResolveUser(ImageUser(text), kPasswd, kGroup);
    EXPECT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  v1::User user;
  user.set_uid(-1);
  EXPECT_FALSE(ResolveUser(user, kPasswd, kGroup).ok());
  user.set_uid(std::int64_t{std::numeric_limits<std::int32_t>::max()} + 1);
  EXPECT_FALSE(ResolveUser(user, kPasswd, kGroup).ok());
  user.set_uid(1);
  user.set_gid(-7);
  EXPECT_FALSE(ResolveUser(user, kPasswd, kGroup).ok());
}

class RootTest : public ::testing::Test {
 protected:
  RootTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "husk-user-XXXXXX";
    base_ = mkdtemp(pattern.data());
    std::filesystem::create_directories(base_ / "root/etc");
    std::filesystem::create_directories(base_ / "etc");
  }
  ~RootTest() override { std::filesystem::remove_all(base_); }
  static void Write(const std::filesystem::path& path, const std::string& text) { std::ofstream(path) << text; }
  std::filesystem::path base_;
};

TEST_F(RootTest, LinksCannotLeaveTheRoot) {
  Write(base_ / "etc/passwd", "victim:x:5:5::/:\n");
  std::filesystem::create_symlink("../../etc/passwd", base_ / "root/etc/passwd");
  // Within the root "../../etc/passwd" is the link itself: a loop, so no file.
  EXPECT_FALSE(ResolveUserIn(base_ / "root", ImageUser("victim")).ok());
  std::filesystem::remove(base_ / "root/etc/passwd");
  std::filesystem::create_symlink(base_ / "etc/passwd", base_ / "root/etc/passwd");
  EXPECT_FALSE(ResolveUserIn(base_ / "root", ImageUser("victim")).ok());
}

TEST_F(RootTest, OddFilesCountAsEmpty) {
  ASSERT_EQ(mkfifo((base_ / "root/etc/passwd").c_str(), 0600), 0);
  std::filesystem::create_directory(base_ / "root/etc/group");
  const auto resolved = ResolveUserIn(base_ / "root", ImageUser("12"));
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->uid, 12U);
  EXPECT_THAT(resolved->additional_gids, IsEmpty());
}

TEST_F(RootTest, ReadsWhatTheImageHas) {
  Write(base_ / "root/etc/passwd", kPasswd);
  Write(base_ / "root/etc/group", kGroup);
  const auto resolved = ResolveUserIn(base_ / "root", ImageUser("alice"));
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_THAT(resolved->additional_gids, ElementsAre(10, 29));
}

}  // namespace
}  // namespace husk::agent
