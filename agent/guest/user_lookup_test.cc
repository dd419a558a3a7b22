#include "agent/guest/user_lookup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>

namespace husk::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

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
  EXPECT_THAT(alice->additional_gids, ElementsAre(10, 29, 1001));
  EXPECT_EQ(alice->home, "/home/alice");

  const auto by_number = ResolveUser(ImageUser("1000"), kPasswd, kGroup);
  ASSERT_TRUE(by_number.ok());
  EXPECT_EQ(by_number->gid, 1001U);
  EXPECT_THAT(by_number->additional_gids, ElementsAre(10, 29, 1001));

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
  EXPECT_THAT(resolved->additional_gids, ElementsAre(10, 29, 500, 1001));

  user.set_gid(10);
  user.set_strict_supplemental_groups(true);
  resolved = ResolveUser(user, kPasswd, kGroup);
  ASSERT_TRUE(resolved.ok());
  EXPECT_EQ(resolved->gid, 10U);
  EXPECT_THAT(resolved->additional_gids, ElementsAre(10, 500)) << "strict, and the main group is there once";

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

// --- CFG-01: what hostile images say of their users

void ExpectRefused(const v1::User& user, std::string_view passwd, std::string_view group, const std::string& words) {
  const auto resolved = ResolveUser(user, passwd, group);
  EXPECT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument) << resolved.status();
  const std::string message(resolved.status().message());
  EXPECT_THAT(message, HasSubstr(words));
  EXPECT_LT(message.size(), 1000U);
  EXPECT_TRUE(std::all_of(message.begin(), message.end(), [](char c) { return c >= ' ' && c <= '~'; })) << message;
}

TEST(UserLookupTest, Cfg01DigitsAreTheNumberThatTheKubeletWasTold) {
  // ImageStatus says uid 1000, and runAsNonRoot is content with that.
  for (const char* passwd : {"1000:x:0:0::/:\n", "1000:x:0:0::/:\n0:x:1000:0::/:\n", "1000:x:0:0::/:", ""}) {
    for (const char* user : {"1000", "1000:1000", "01000"}) {
      const auto resolved = ResolveUser(ImageUser(user), passwd, "1000:x:0:\n");
      ASSERT_TRUE(resolved.ok()) << resolved.status();
      EXPECT_EQ(resolved->uid, 1000U) << user << " " << passwd;
    }
    EXPECT_EQ(ResolveUser(ImageUser("1000:1000"), passwd, "1000:x:0:\n")->gid, 1000U);
  }
  const auto digits = ResolveUser(ImageUser("1234"), kPasswd, kGroup);
  ASSERT_TRUE(digits.ok());
  EXPECT_EQ(digits->uid, 1234U);
  EXPECT_EQ(digits->gid, 0U);
  EXPECT_EQ(digits->home, "/");
  // A name is what the caller asks for by run_as_username, which the kubelet never takes for a number.
  v1::User named;
  named.set_username("1234");
  EXPECT_EQ(ResolveUser(named, kPasswd, kGroup)->uid, 77U);
}

TEST(UserLookupTest, Cfg01NumbersOutOfRange) {
  const std::string passwd = "-1:x:0:0::/:\n2147483648:x:0:0::/:\n4294967297:x:0:0::/:\n4294967295:x:0:0::/:\n";
  for (const std::string number : {"-1", "2147483648", "4294967295", "4294967296", "4294967297", "-9223372036854775808",
                                   "9223372036854775808", "18446744073709551616", "-99999999999999999999"}) {
    ExpectRefused(ImageUser(number), passwd, "", number);
    ExpectRefused(ImageUser(number + ":0"), passwd, "", number);
    ExpectRefused(ImageUser("0:" + number), "", passwd, number);
    ExpectRefused(ImageUser(number), passwd, "", "between 0 and 2147483647");
  }
  EXPECT_EQ(ResolveUser(ImageUser("2147483647:2147483647"), "", "")->uid, 2147483647U);
  ExpectRefused(ImageUser(std::string(5'000'000, '9')), "", "", "99999...");
}

TEST(UserLookupTest, Cfg01NamesThatAreNotThere) {
  ExpectRefused(ImageUser("mallory"), kPasswd, kGroup, "the image's USER: the image has no user \"mallory\"");
  ExpectRefused(ImageUser("root:mallory"), kPasswd, kGroup, "the image's USER: the image has no group \"mallory\"");
  for (const char* odd : {"#", "# comment", "broken line", " root", "root ", "+0", "0x0", "1e3", "-", "1000x", "root\n",
                          "a:b:c", "\x1b[2J", "r\u00f6\u00f6t"}) {
    ExpectRefused(ImageUser(odd), kPasswd, kGroup, "the image has no ");
  }
  ExpectRefused(ImageUser(std::string("root\0", 5)), kPasswd, kGroup, "root\\x00");
  ExpectRefused(ImageUser(std::string(5'000'000, 'x')), kPasswd, kGroup, "xxx...\"");
  ExpectRefused(ImageUser("root:" + std::string(5'000'000, 'x')), kPasswd, kGroup, "xxx...\"");
}

TEST(UserLookupTest, Cfg01PoisonedLines) {
  // An id that is no id does not become 0, nor does a later line of the same name count.
  for (const std::string id : {"", "-1", "2147483648", "4294967296", "99999999999999999999", "x", " 0", "0x0"}) {
    ExpectRefused(ImageUser("eve"), "eve:x:" + id + ":5::/:\neve:x:0:0::/:\n", "", "gives user \"eve\" the ids");
    ExpectRefused(ImageUser("eve"), "eve:x:5:" + id + "::/:\neve:x:0:0::/:\n", "", "gives user \"eve\" the ids");
    ExpectRefused(ImageUser("0:eve"), "", "eve:x:" + id + ":\neve:x:0:\n", "gives group \"eve\" the id");
    // By number, and as supplementary groups, such lines are none.
    const auto resolved = ResolveUser(ImageUser("7"), "eve:x:7:" + id + "::/eve:\nbob:x:7:8::/bob:\n",
                                      "bad:x:" + id + ":bob\ngood:x:9:bob\n");
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_EQ(resolved->gid, 8U);
    EXPECT_THAT(resolved->additional_gids, ElementsAre(8, 9));
  }
  ExpectRefused(ImageUser("eve"), "eve:x:1:1::/" + std::string(5000, 'h') + ":\n", "", "home directory");
  ExpectRefused(ImageUser("eve"), "eve:x:" + std::string(900'000, '9') + ":1::/:\n", "", "999...\"");
  ExpectRefused(ImageUser("eve"), "eve:x:\x1b[2J:1::/:\n", "", "\\x1b[2J");
  // Comments, and lines too short to be whole.
  ExpectRefused(ImageUser("#eve"), "#eve:x:0:0::/:\n", "", "no user \"#eve\"");
  EXPECT_EQ(ResolveUser(ImageUser("7"), "#eve:x:7:8::/:\n", "")->gid, 0U);
  ExpectRefused(ImageUser("eve"), "eve\neve:\neve:x:1:1\neve:x:0:0:", "", "no user \"eve\"");
}

TEST(UserLookupTest, Cfg01FilesOfSeparators) {
  for (const char separator : {':', '\n', ',', '\0'}) {
    const std::string file(std::size_t{1} << 20, separator);
    const auto resolved = ResolveUser(ImageUser("7"), file, file);
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_EQ(resolved->uid, 7U);
    EXPECT_THAT(resolved->additional_gids, ElementsAre(0));
    ExpectRefused(ImageUser("eve:eve"), file, file, "no user \"eve\"");
  }
}

TEST(UserLookupTest, Cfg01SupplementaryGroupsAreBounded) {
  const auto groups = [](std::uint32_t first, std::uint32_t count) {
    std::string file;
    for (std::uint32_t gid = first; gid < first + count; ++gid) file += "g:x:" + std::to_string(gid) + ":eve,eve\n";
    return file;
  };
  const std::string passwd = "eve:x:1:5::/:\n";
  // With the main group as many as the kernel takes.
  const std::string most = groups(1000, 65535);
  // Each twice, and the main group too: they count once.
  const auto resolved = ResolveUser(ImageUser("eve"), passwd, most + most + "eve:x:5:eve\n");
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->additional_gids.size(), 65536U);
  EXPECT_EQ(resolved->additional_gids.back(), 1000U + 65534U);
  ExpectRefused(ImageUser("eve"), passwd, groups(1000, 65536), "65537 supplementary groups");
  // The container's own count as well.
  v1::User user = ImageUser("eve");
  user.add_supplemental_gids(1000);
  EXPECT_TRUE(ResolveUser(user, passwd, most).ok());
  user.add_supplemental_gids(999);
  ExpectRefused(user, passwd, most, "65537 supplementary groups");
  user.set_strict_supplemental_groups(true);
  EXPECT_THAT(ResolveUser(user, passwd, most)->additional_gids, ElementsAre(5, 999, 1000));
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
  EXPECT_THAT(resolved->additional_gids, ElementsAre(0));
}

TEST_F(RootTest, Cfg01FilesTooLargeAreRefusedNotCut) {
  const std::string limit = std::to_string(1 << 20);
  // The last line's first half is a user as well: group 1 instead of 1001.
  const std::string line = "eve:x:1000:1001::/home/eve:";
  std::string passwd = std::string((std::size_t{1} << 20) - line.size(), '\n') + line;
  Write(base_ / "root/etc/passwd", passwd);
  auto resolved = ResolveUserIn(base_ / "root", ImageUser("1000"));
  ASSERT_TRUE(resolved.ok()) << "as large as may be: " << resolved.status();
  EXPECT_EQ(resolved->gid, 1001U);
  EXPECT_EQ(resolved->home, "/home/eve");
  Write(base_ / "root/etc/passwd", "\n" + passwd);
  for (const char* user : {"1000", "eve", "0"}) {
    resolved = ResolveUserIn(base_ / "root", ImageUser(user));
    EXPECT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument) << user;
    EXPECT_THAT(std::string(resolved.status().message()),
                HasSubstr("the image's /etc/passwd is larger than " + limit + " bytes"));
  }
  Write(base_ / "root/etc/passwd", kPasswd);
  // Sparse: its size costs the image nothing.
  Write(base_ / "root/etc/group", "");
  std::filesystem::resize_file(base_ / "root/etc/group", std::uintmax_t{1} << 40);
  resolved = ResolveUserIn(base_ / "root", ImageUser("alice"));
  EXPECT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(resolved.status().message()),
              HasSubstr("the image's /etc/group is larger than " + limit + " bytes"));
  std::filesystem::remove(base_ / "root/etc/group");
  EXPECT_TRUE(ResolveUserIn(base_ / "root", ImageUser("alice")).ok());
}

TEST_F(RootTest, ReadsWhatTheImageHas) {
  Write(base_ / "root/etc/passwd", kPasswd);
  Write(base_ / "root/etc/group", kGroup);
  const auto resolved = ResolveUserIn(base_ / "root", ImageUser("alice"));
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_THAT(resolved->additional_gids, ElementsAre(10, 29, 1001));
}

}  // namespace
}  // namespace husk::agent
