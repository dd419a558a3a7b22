#include "agent/guest/image_directory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace husk::agent {
namespace {

namespace fs = std::filesystem;

class ImageDirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "husk-image-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    fs::create_directories(root_ + "/data/inner");
    std::ofstream(root_ + "/data/file") << "x";
    fs::create_directory_symlink("/data", root_ + "/absolute");
    fs::create_directory_symlink("../../../../../../data", root_ + "/climbs");
    fs::create_directory_symlink("loop", root_ + "/loop");
    fs::create_directory_symlink("/usr", root_ + "/outside");
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string Found(const std::string& sub_path) {
    const auto found = FindImageDirectory(root_, sub_path);
    return found.ok() ? *found : std::string(found.status().message());
  }
  Status Refused(const std::string& sub_path) { return FindImageDirectory(root_, sub_path).status(); }

  std::string root_;
};

TEST_F(ImageDirectoryTest, FindsDirectoriesAndFollowsSymlinksAsTheImageWould) {
  EXPECT_EQ(Found(""), root_);
  EXPECT_EQ(Found("data/inner"), root_ + "/data/inner");
  EXPECT_EQ(Found("./data/"), root_ + "/data");
  EXPECT_EQ(Found("absolute/inner"), root_ + "/data/inner");
  EXPECT_EQ(Found("climbs"), root_ + "/data");
}

TEST_F(ImageDirectoryTest, NeverLeavesTheImage) {
  for (const std::string& sub_path : {std::string("../x"), std::string("data/../.."), std::string("/data"),
                                      std::string("a\0b", 3), std::string("..")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Refused(sub_path))) << sub_path;
  }
  // The host has a /usr; the image has none.
  EXPECT_TRUE(absl::IsFailedPrecondition(Refused("outside")));
}

TEST_F(ImageDirectoryTest, WhatIsNoDirectoryIsRefusedTheKubeletsWay) {
  for (const char* sub_path : {"missing", "data/file", "data/file/x", "loop"}) {
    const Status refused = Refused(sub_path);
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << sub_path;
    EXPECT_EQ(refused.message().find("ImageVolumeMountFailed: image_sub_path \""), 0U) << refused;
  }
}

}  // namespace
}  // namespace husk::agent
