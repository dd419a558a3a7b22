#include "sandbox/volumes/host_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace husk::sandbox {
namespace {

using ::testing::HasSubstr;

class HostTreeTest : public ::testing::Test {
 protected:
  HostTreeTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "husk-tree-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
  }
  ~HostTreeTest() override { std::filesystem::remove_all(directory_); }
  void Write(const std::string& path, const std::string& text) { std::ofstream(directory_ + "/" + path) << text; }

  std::string directory_;
};

TEST_F(HostTreeTest, ReadsWhatIsThere) {
  std::filesystem::create_directories(directory_ + "/..1/below");
  Write("..1/below/key", "value");
  chmod((directory_ + "/..1/below/key").c_str(), 0440);
  ASSERT_EQ(chown((directory_ + "/..1/below/key").c_str(), 5, 6), 0);
  std::filesystem::create_symlink("..1", directory_ + "/..data");
  std::filesystem::create_symlink("..2", directory_ + "/..data_tmp");
  const auto tree = ReadHostTree(directory_);
  ASSERT_TRUE(tree.ok()) << tree.status();
  ASSERT_EQ(tree->size(), 4U);  // not the kubelet's link on its way
  EXPECT_EQ(tree->at("..1").type, HostEntry::Type::kDirectory);
  EXPECT_EQ(tree->at("..data").target, "..1");
  const HostEntry& key = tree->at("..1/below/key");
  EXPECT_EQ(key.mode, 0440U);
  EXPECT_EQ(key.uid, 5U);
  EXPECT_EQ(key.gid, 6U);
  EXPECT_EQ(key.size, 5);
  EXPECT_EQ(*ReadHostTree(directory_), *tree);
  Write("..1/below/key", "VALUE");
  EXPECT_NE(*ReadHostTree(directory_), *tree);
}

TEST_F(HostTreeTest, RefusesWhatCannotBeCopied) {
  ASSERT_EQ(mkfifo((directory_ + "/fifo").c_str(), 0600), 0);
  EXPECT_THAT(std::string(ReadHostTree(directory_).status().message()), HasSubstr("/fifo"));
  std::filesystem::remove(directory_ + "/fifo");
  Write("big", "");
  std::filesystem::resize_file(directory_ + "/big", std::uint64_t{600} << 20);
  EXPECT_EQ(ReadHostTree(directory_).status().code(), absl::StatusCode::kResourceExhausted);
  std::filesystem::remove(directory_ + "/big");
  std::string deep = directory_;
  for (int level = 0; level < 40; ++level) deep += "/d";
  std::filesystem::create_directories(deep);
  EXPECT_EQ(ReadHostTree(directory_).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(HostTreeTest, OpensOnlyWhatIsInTheTree) {
  Write("file", "x");
  std::filesystem::create_symlink("/etc/passwd", directory_ + "/link");
  std::filesystem::create_symlink("/etc", directory_ + "/directory");
  EXPECT_TRUE(OpenInTree(directory_, "file").ok());
  EXPECT_FALSE(OpenInTree(directory_, "link").ok());
  EXPECT_FALSE(OpenInTree(directory_, "directory/passwd").ok());
  EXPECT_FALSE(OpenInTree(directory_, "../x").ok());
  EXPECT_TRUE(absl::IsAborted(OpenInTree(directory_, "gone").status()));
}

}  // namespace
}  // namespace husk::sandbox
