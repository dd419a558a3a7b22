#include "images/registry_error.h"

#include <gtest/gtest.h>

namespace husk::images {
namespace {

TEST(RegistryErrorText, HasTheCodesAndMessagesOfTheSpecification) {
  EXPECT_EQ(
      RegistryErrorText(R"({"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"v1"}}]})"
                        "\n"),
      "MANIFEST_UNKNOWN: manifest unknown");
  EXPECT_EQ(RegistryErrorText(R"({"errors":[{"code":"DENIED"},{"message":"ask the owner"}]})"),
            "DENIED; ask the owner");
}

TEST(RegistryErrorText, OtherBodiesAreShownFromTheirBeginning) {
  EXPECT_EQ(RegistryErrorText(""), "");
  EXPECT_EQ(RegistryErrorText("no such page\r\n"), "no such page");
  EXPECT_EQ(RegistryErrorText(R"({"errors":"none"})"), R"({\"errors\":\"none\"})");
  EXPECT_EQ(RegistryErrorText(R"({"errors":[7]})"), R"({\"errors\":[7]})");
  EXPECT_EQ(RegistryErrorText(std::string(1000, 'x')), std::string(300, 'x'));
}

TEST(RegistryErrorText, HostileBodiesStayPrintableAndShort) {
  EXPECT_EQ(RegistryErrorText("{\"errors\":[{\"code\":\"A\\u001b[2J\",\"message\":\"\\u0000\"}]}"), "A\\x1b[2J: \\x00");
  const std::string deep = std::string(100000, '[');
  EXPECT_EQ(RegistryErrorText(deep), deep.substr(0, 300));
  std::string many = R"({"errors":[)";
  for (int i = 0; i < 5; ++i) many += R"({"code":"E"},)";
  many.back() = ']';
  EXPECT_EQ(RegistryErrorText(many + "}"), "E; E; E");
}

}  // namespace
}  // namespace husk::images
