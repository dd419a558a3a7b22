#include "sandbox/network/cni_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX's

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "sandbox/network/json.h"

namespace husk::sandbox {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr char kList[] = R"({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a", "x": 1}, {"type": "b"}]})";

TEST(CniConfig, ReadsListsAndSinglePlugins) {
  const auto list = ParseConfigList(kList, "f");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->name, "n");
  EXPECT_EQ(list->version, "1.0.0");
  ASSERT_EQ(list->plugins.size(), 2U);
  EXPECT_EQ(list->plugins[0].type, "a");
  EXPECT_EQ(list->plugins[0].config["x"], 1);
  const auto again = ParseConfigList(WriteJson(ToJson(*list)), "f");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->plugins[0].config, list->plugins[0].config);

  const auto single = ParseSingleConfig(R"({"cniVersion": "0.3.1", "name": "s", "type": "bridge"})", "f");
  ASSERT_TRUE(single.ok()) << single.status();
  ASSERT_EQ(single->plugins.size(), 1U);
  EXPECT_EQ(single->plugins[0].type, "bridge");
}

TEST(CniConfig, ErrorsArePrintableWhateverTheFileSays) {
  const auto message = [](const std::string& text) {
    return std::string(ParseConfigList(text, "f").status().message());
  };
  EXPECT_THAT(message(R"({"cniVersion": "1.0.0", "name": "a\u007f\u001b", "plugins": [{"type": "a"}]})"),
              HasSubstr(R"("a\x7f\x1b")"));
  EXPECT_THAT(message(R"({"cniVersion": "\u007f", "name": "a", "plugins": [{"type": "a"}]})"), HasSubstr(R"(\x7f)"));
  EXPECT_THAT(message(R"({"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "a\n"}]})"),
              HasSubstr(R"(must be a file name: a\n)"));
  EXPECT_LT(message(R"({"cniVersion": "1.0.0", "name": ")" + std::string(100'000, 'x') + "!\"}").size(), 300U);
}

TEST(CniConfig, TakesTheHighestVersionThatBothKnow) {
  const auto list = ParseConfigList(
      R"({"cniVersion": "0.4.0", "cniVersions": ["0.3.1", "1.0.0", "9.0.0"], "name": "n", "plugins": [{"type": "a"}]})",
      "f");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->version, "1.0.0");
}

TEST(CniConfig, SaysWhatIsWrong) {
  const auto fault = [](const std::string& text) {
    const auto list = ParseConfigList(text, "/etc/x.conflist");
    EXPECT_TRUE(absl::IsInvalidArgument(list.status())) << text;
    EXPECT_THAT(list.status().message(), HasSubstr("/etc/x.conflist"));
    return std::string(list.status().message());
  };
  EXPECT_THAT(fault("{"), HasSubstr("not JSON"));
  EXPECT_THAT(fault(""), HasSubstr("not JSON"));
  EXPECT_THAT(fault("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(fault(std::string(1'000'000, '[')), HasSubstr("nested too deeply"));
  EXPECT_THAT(fault(R"({"cniVersion": "0.2.0", "name": "n", "plugins": [{"type": "a"}]})"), HasSubstr("0.2.0"));
  EXPECT_THAT(fault(R"({"name": "n", "plugins": [{"type": "a"}]})"), HasSubstr("cniVersion"));
  EXPECT_THAT(fault(R"({"cniVersion": "1.0.0", "plugins": [{"type": "a"}]})"), HasSubstr("name"));
  EXPECT_THAT(fault(R"({"cniVersion": "1.0.0", "name": "../n", "plugins": [{"type": "a"}]})"), HasSubstr("name"));
  EXPECT_THAT(fault(R"({"cniVersion": "1.0.0", "name": "n", "plugins": []})"), HasSubstr("plugins"));
  EXPECT_THAT(fault(R"({"cniVersion": "1.0.0", "name": "n", "plugins": 7})"), HasSubstr("plugins"));
  EXPECT_THAT(fault(R"({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": 5}]})"), HasSubstr("type"));
  EXPECT_THAT(fault(R"({"cniVersion": "1.0.0", "name": "n", "plugins": ["a"]})"), HasSubstr("type"));
  EXPECT_THAT(fault(R"({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "../a"}]})"), HasSubstr("file name"));
}

class CniConfigDirectory : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/net.d-XXXXXX";
    root_ = mkdtemp(name.data());
  }
  void TearDown() override { fs::remove_all(root_); }
  void Write(const std::string& file, const std::string& text) { std::ofstream(root_ + "/" + file) << text; }
  std::string root_;
};

TEST_F(CniConfigDirectory, TheFirstValidFileInTheOrderOfNamesWins) {
  EXPECT_TRUE(absl::IsNotFound(LoadConfigList(root_ + "/missing").status()));
  EXPECT_TRUE(absl::IsNotFound(LoadConfigList(root_).status()));
  Write("00-readme.txt", kList);
  fs::create_directory(root_ + "/05-directory.conf");
  EXPECT_TRUE(absl::IsNotFound(LoadConfigList(root_).status()));

  Write("10-broken.conflist", "{");
  Write("11-list-as-conf.conf", kList);
  const auto none = LoadConfigList(root_);
  EXPECT_TRUE(absl::IsInvalidArgument(none.status()));
  EXPECT_THAT(none.status().message(), HasSubstr("10-broken.conflist: not JSON"));
  EXPECT_THAT(none.status().message(), HasSubstr("11-list-as-conf.conf"));

  Write("30-later.conf", R"({"cniVersion": "0.3.1", "name": "later", "type": "bridge"})");
  EXPECT_EQ(LoadConfigList(root_)->name, "later");
  Write("20-ours.json", R"({"cniVersion": "0.3.1", "name": "ours", "type": "bridge"})");
  const auto ours = LoadConfigList(root_);
  ASSERT_TRUE(ours.ok());
  EXPECT_EQ(ours->name, "ours");
  EXPECT_EQ(ours->source, root_ + "/20-ours.json");
}

TEST_F(CniConfigDirectory, AHugeFileIsAFault) {
  Write("10.conf", std::string(5 << 20, ' '));
  EXPECT_THAT(LoadConfigList(root_).status().message(), HasSubstr("larger than 4 MiB"));
}

}  // namespace
}  // namespace husk::sandbox
