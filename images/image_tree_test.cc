#include "images/image_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "images/byte_codec.h"
#include "images/digest.h"
#include "images/erofs_writer.h"
#include "images/layer_unpacker.h"
#include "images/testing/archive.h"
#include "images/testing/disk_check.h"
#include "images/testing/merged_layers.h"
#include "images/text.h"

namespace husk::images {
namespace {

using testing::ArchiveEntry;
using testing::Directory;
using ::testing::ElementsAre;
using testing::File;
using testing::HardLink;
using ::testing::HasSubstr;
using testing::Layers;
using testing::MakeTar;
using testing::Symlink;
using Merged = testing::MergedLayers;

std::vector<std::string> Merge(const Layers& layers) {
  const Merged merged(layers);
  EXPECT_TRUE(merged.status.ok()) << merged.status;
  return merged.List();
}

std::string Refusal(const Layers& layers) {
  const Merged merged(layers);
  EXPECT_EQ(merged.status.code(), absl::StatusCode::kInvalidArgument) << merged.status;
  return std::string(merged.status.message());
}

TEST(ImageTreeTest, NamesThatCannotBeFilesAreRefused) {
  EXPECT_THAT(Refusal({{File("../a")}}), HasSubstr("\"..\""));
  EXPECT_THAT(Refusal({{File("a/../../b")}}), HasSubstr("\"..\""));
  EXPECT_THAT(Refusal({{HardLink("a", "../../etc/passwd")}}), HasSubstr("\"..\""));
  ArchiveEntry long_name = File("x");
  long_name.pax = {{"path", std::string(300, 'n')}};
  EXPECT_THAT(Refusal({{long_name}}), HasSubstr("255"));
  ArchiveEntry nul = File("x");
  nul.pax = {{"path", std::string("a\0b", 3)}};
  EXPECT_THAT(Refusal({{nul}}), HasSubstr("NUL"));
  ArchiveEntry endless = File("x");
  std::string path;
  for (int i = 0; i < 32768; ++i) path += "d/";
  endless.pax = {{"path", path}};
  EXPECT_THAT(Refusal({{endless}}), HasSubstr("4096"));
  // An absolute name is one below the root, as for every other tool.
  EXPECT_THAT(Merge({{File("/etc//./passwd")}}), ElementsAre("/etc/", "/etc/passwd=data"));
}

TEST(ImageTreeTest, TheRootStaysADirectory) {
  EXPECT_THAT(Refusal({{Symlink(".", "/etc")}}), HasSubstr("root"));
  EXPECT_THAT(Refusal({{Symlink("/", "etc")}}), HasSubstr("root"));
  EXPECT_THAT(Refusal({{Directory("./")}, {HardLink(".", "a")}}), HasSubstr("root"));
  const Merged merged({{Directory("./", 0711)}});
  EXPECT_EQ(merged.tree.inode(kRootInode).mode & 07777, 0711U);
}

TEST(ImageTreeTest, SymlinkedParentsStayBelowTheRoot) {
  EXPECT_THAT(Merge({{Symlink("up", "../../.."), Directory("up/in")}, {File("up/in/f")}}),
              ElementsAre("/in/", "/in/f=data", "/up->../../.."));
  EXPECT_THAT(Merge({{Directory("usr"), Directory("usr/lib"), Symlink("lib", "/usr/lib")}, {File("lib/x")}}),
              ElementsAre("/lib->/usr/lib", "/usr/", "/usr/lib/", "/usr/lib/x=data"));
  EXPECT_THAT(Merge({{Symlink("d", "gone/deep"), File("d/f")}}),
              ElementsAre("/d->gone/deep", "/gone/", "/gone/deep/", "/gone/deep/f=data"));
  EXPECT_THAT(Refusal({{Symlink("a", "b"), Symlink("b", "a"), File("a/f")}}), HasSubstr("too many symlinks"));
  EXPECT_THAT(Refusal({{File("f"), File("f/g")}}), HasSubstr("not a directory"));
}

TEST(ImageTreeTest, HardLinks) {
  EXPECT_THAT(Merge({{File("a"), HardLink("b", "./a"), HardLink("b", "a")}, {HardLink("c", "b"), File(".wh.a")}}),
              ElementsAre("/b=data", "/c=data"));
  EXPECT_THAT(Merge({{Symlink("s", "t"), HardLink("h", "s")}}), ElementsAre("/h->t", "/s->t"));
  EXPECT_THAT(Refusal({{HardLink("b", "a"), File("a")}}), HasSubstr("does not exist"));
  EXPECT_THAT(Refusal({{HardLink("b", "")}}), HasSubstr("does not exist"));
  EXPECT_THAT(Refusal({{Directory("d"), HardLink("b", "d")}}), HasSubstr("is a directory"));
  EXPECT_THAT(Refusal({{Directory("d"), File("d/f"), HardLink("d", "d/f")}}), HasSubstr("what it replaces"));
}

TEST(ImageTreeTest, Whiteouts) {
  const std::vector<ArchiveEntry> lower = {Directory("d"), File("d/a"), File("d/b"), Directory("d/e"), File("d/e/f")};
  EXPECT_THAT(Merge({lower, {File("d/.wh.a"), File("d/.wh.e")}}), ElementsAre("/d/", "/d/b=data"));
  EXPECT_THAT(Merge({lower, {File(".wh.d")}}), ElementsAre());
  EXPECT_EQ(Merge({lower, {File(".wh.other"), File("no/.wh.x"), File("d/a/.wh.x")}}).size(), 5U);
  // Only what lower layers brought is hidden, whatever the order.
  EXPECT_THAT(Merge({lower, {File("d/new", "1"), File("d/.wh..wh..opq"), File("d/new2", "2")}}),
              ElementsAre("/d/", "/d/new2=2", "/d/new=1"));
  EXPECT_THAT(Merge({lower, {File("d/e/new", "1"), File(".wh.d"), File("d/z", "2")}}),
              ElementsAre("/d/", "/d/e/", "/d/e/new=1", "/d/z=2"));
  EXPECT_THAT(Merge({lower, {File("d/a", "1"), File("d/.wh.a")}}),
              ElementsAre("/d/", "/d/a=1", "/d/b=data", "/d/e/", "/d/e/f=data"));
  EXPECT_THAT(Merge({lower, {Symlink("s", "d")}, {File("s/.wh.a"), File(".wh..wh.plnk/1"), File(".wh..wh.aufs")}}),
              ElementsAre("/d/", "/d/b=data", "/d/e/", "/d/e/f=data", "/s->d"));
  EXPECT_THAT(Refusal({{File(".wh.")}}), HasSubstr("whiteout"));
  EXPECT_THAT(Refusal({{File("d/.wh..")}}), HasSubstr("whiteout"));
  EXPECT_THAT(Refusal({{File(".wh...")}}), HasSubstr("whiteout"));
}

TEST(ImageTreeTest, TypesChangeBetweenLayers) {
  const std::vector<ArchiveEntry> lower = {Directory("d"), File("d/a"), File("f"), Symlink("l", "d")};
  EXPECT_THAT(Merge({lower, {File("d", "1"), Directory("f"), Directory("l")}}), ElementsAre("/d=1", "/f/", "/l/"));
  EXPECT_THAT(Merge({lower, {Symlink("d", "f"), File("l", "2"), Symlink("f", "l")}}),
              ElementsAre("/d->f", "/f->l", "/l=2"));
  EXPECT_THAT(Merge({lower, {Directory("d", 0700)}}), ElementsAre("/d/", "/d/a=data", "/f=data", "/l->d"));
}

TEST(ImageTreeTest, AttributesThatMeanSomethingToOverlayfsAreDropped) {
  ArchiveEntry entry = Directory("d");
  entry.pax = {{"SCHILY.xattr.trusted.overlay.redirect", "/etc"},
               {"SCHILY.xattr.security.capability", std::string("\1\0\0\2", 4)},
               {"SCHILY.xattr.com.example.x", "y"}};
  const Merged merged({{entry}});
  const InodeId id = merged.tree.inode(kRootInode).children.at("d").inode;
  EXPECT_EQ(merged.tree.inode(id).attributes,
            (std::vector<ExtendedAttribute>{{"security.capability", std::string("\1\0\0\2", 4)}}));
  entry.pax = {{"SCHILY.xattr.user.big", std::string(65536, 'x')}};
  EXPECT_THAT(Refusal({{entry}}), HasSubstr("65535"));
}

TEST(ErofsWriterTest, FsckAcceptsWhatIsHardToPlace) {
  std::vector<ArchiveEntry> entries;
  // Directories of every size round a block's end, names that sort before ".", and long symlinks.
  for (int size = 0; size < 45; ++size) {
    const std::string name = Concat("d", size);
    entries.push_back(Directory(name));
    for (int i = 0; i < size; ++i) entries.push_back(File(Concat(name, "/", std::string(80, 'n'), i), ""));
  }
  entries.push_back(File("!before-the-dot"));
  entries.push_back(File("exactly-a-block", std::string(4096, 'b')));
  entries.push_back(File("more-than-a-block", std::string(4097, 'm')));
  ArchiveEntry link = Symlink("long", "");
  link.pax = {{"linkpath", std::string(4000, 't')}, {"SCHILY.xattr.user.big", std::string(3000, 'v')}};
  entries.push_back(link);
  ArchiveEntry attributes = File("attributes");
  attributes.pax = {{"SCHILY.xattr.user.a", std::string(65535, 'v')}, {"SCHILY.xattr.user.b", ""}};
  entries.push_back(attributes);
  const Merged merged({entries, {File("sub/file", "upper")}, {}});
  ASSERT_TRUE(merged.status.ok()) << merged.status;
  const std::string disk = merged.directory.path() + "/disk";
  const Status written = merged.WriteDisk(disk);
  ASSERT_TRUE(written.ok()) << written;
  const std::string extracted = merged.directory.path() + "/extracted";
  const Status checked = testing::FsckAndExtract(disk, extracted);
  ASSERT_TRUE(checked.ok()) << checked;
  const std::set<std::string> tree = testing::DescribeTree(extracted);
  EXPECT_EQ(tree.size(), merged.List().size() + 1);
  const auto has = [&tree](const std::string& prefix) {
    return std::any_of(tree.begin(), tree.end(), [&](const std::string& line) { return line.starts_with(prefix); });
  };
  EXPECT_TRUE(has("/long l 777 0 0 1700000000 1 " + std::string(4000, 't')));
  EXPECT_TRUE(has("/exactly-a-block - 644 0 0 1700000000 1 4096 "));
  EXPECT_TRUE(has("/sub/file - 644 0 0 1700000000 1 5 "));
  EXPECT_EQ(*WriteErofsMetadata(merged.tree, merged.lengths, "test"),
            *WriteErofsMetadata(merged.tree, merged.lengths, "test"));
}

TEST(ErofsWriterTest, AnEmptyTreeIsAnImage) {
  const Merged merged(Layers{});
  const std::string disk = merged.directory.path() + "/disk";
  ASSERT_TRUE(merged.WriteDisk(disk).ok());
  const Status checked = testing::FsckAndExtract(disk, merged.directory.path() + "/extracted");
  EXPECT_TRUE(checked.ok()) << checked;
}

TEST(LayerIndexTest, DamageIsFound) {
  LayerIndexWriter writer;
  ASSERT_TRUE(writer.Add({.file = {.path = "a"}}).ok());
  const std::string bytes = writer.Finish(4096);
  EXPECT_TRUE(LayerIndexReader::Parse(bytes).ok());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    EXPECT_FALSE(LayerIndexReader::Parse(damaged).ok()) << i;
    EXPECT_FALSE(LayerIndexReader::Parse(bytes.substr(0, i)).ok()) << i;
  }
}

TEST(LayerIndexTest, HasNoBytesAfterItsEntries) {
  LayerIndexWriter writer;
  ASSERT_TRUE(writer.Add({.file = {.path = "a"}}).ok());
  std::string bytes = writer.Finish(4096);
  bytes.resize(bytes.size() - DigestOf("").size());
  // The number of entries, behind the magic, the version and the blob's length.
  SetNumber(std::uint64_t{0}, 20, bytes);
  bytes += DigestOf(bytes);
  StatusOr<LayerIndexReader> reader = LayerIndexReader::Parse(bytes);
  ASSERT_TRUE(reader.ok());
  LayerEntry entry;
  EXPECT_TRUE(absl::IsDataLoss(reader->Next(entry).status()));
}

}  // namespace
}  // namespace husk::images
