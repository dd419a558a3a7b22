// Layers written to do harm: IMG-01 to IMG-11 and IMG-15 of the catalogue of bad inputs. What is refused is refused
// with an error that names the entry and is fit to print; what is accepted stays below the root of the image.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "agent/common/unique_fd.h"
#include "images/decompressor.h"
#include "images/digest.h"
#include "images/layer_unpacker.h"
#include "images/limits.h"
#include "images/testing/archive.h"
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
using testing::MergedLayers;
using testing::Symlink;
using testing::TarEntryBytes;

// An entry with PAX records in front of it.
ArchiveEntry With(ArchiveEntry entry, std::vector<std::pair<std::string, std::string>> pax) {
  entry.pax = std::move(pax);
  return entry;
}

// An entry whose name is told by a GNU long name.
std::string LongName(const std::string& name) {
  return TarEntryBytes({.path = "././@LongLink", .type = 'L', .data = name}) + TarEntryBytes(File("short"));
}

void ExpectRefusal(const Status& status, const std::string& what) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr(what));
  EXPECT_LT(message.size(), 1500U);
  EXPECT_TRUE(std::all_of(message.begin(), message.end(), [](char c) { return c >= ' ' && c <= '~'; })) << message;
}

// Nothing was made but the layers' blobs, whatever the archive said.
void ExpectOnlyBlobs(const MergedLayers& merged) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(merged.directory.path())) {
    EXPECT_TRUE(entry.is_regular_file() && !entry.is_symlink()) << entry.path();
    EXPECT_TRUE(entry.path().filename().string().starts_with("blob")) << entry.path();
  }
}

void ExpectRefused(const Layers& layers, const std::string& what) {
  const MergedLayers merged(layers);
  ExpectRefusal(merged.status, what);
  ExpectOnlyBlobs(merged);
}

// What the layers make, which must be a sound disk.
std::vector<std::string> Merge(const Layers& layers) {
  const MergedLayers merged(layers);
  EXPECT_TRUE(merged.status.ok()) << merged.status;
  ExpectOnlyBlobs(merged);
  const auto disk = merged.ReadBack();
  EXPECT_TRUE(disk.ok()) << disk.status();
  return merged.List();
}

TEST(HostileLayerTest, Img01NamesStayBelowTheRoot) {
  ExpectRefused({{File("../a")}}, "\"../a\": the path contains \"..\"");
  ExpectRefused({{File("a/../../b")}}, "\"..\"");
  ExpectRefused({{Directory("a/..")}}, "\"..\"");
  ExpectRefused({{File("/../a")}}, "\"..\"");
  ExpectRefused({{Symlink("a/../l", "x")}}, "\"..\"");
  ExpectRefused({{With(File("x"), {{"path", "../../etc/passwd"}})}}, "\"..\"");
  ExpectRefusal(MergedLayers({LongName("../../etc/passwd")}).status, "\"..\"");
  EXPECT_THAT(Merge({{File("/etc/passwd"), File("//tmp///x/./y")}}),
              ElementsAre("/etc/", "/etc/passwd=data", "/tmp/", "/tmp/x/", "/tmp/x/y=data"));
  ExpectRefused({{With(File("x"), {{"path", std::string("a\0/../b", 7)}})}}, "NUL");
  // In a header and in GNU's long name a NUL ends the name.
  EXPECT_THAT(Merge({{File(std::string("a\0/../b", 7))}}), ElementsAre("/a=data"));
  EXPECT_THAT(MergedLayers({LongName(std::string("a\0/../b", 7))}).List(), ElementsAre("/a=data"));
  const std::string huge(std::size_t{64} << 10, 'n');
  ExpectRefused({{With(File("x"), {{"path", huge}})}}, "4096");
  ExpectRefusal(MergedLayers({LongName(huge)}).status, "4096");
  ExpectRefused({{With(Symlink("x", "y"), {{"linkpath", huge}})}}, "too long");
  ExpectRefused({{File("a"), With(HardLink("x", "a"), {{"linkpath", huge}})}}, "4096");
  // Names made to deceive who reads the log.
  ExpectRefused({{With(File("x"), {{"path", "../\n\x1b[2Jlevel=info all is well"}})}}, "\\n");
}

TEST(HostileLayerTest, Img02TheRootIsADirectory) {
  for (const char* name : {".", "/", "./", "//", "/."}) {
    ExpectRefused({{Symlink(name, "/etc")}}, "the root must be a directory");
    ExpectRefused({{File("a"), HardLink(name, "a")}}, "the root must be a directory");
    ExpectRefused({{ArchiveEntry{.path = name, .type = '3'}}}, "the root must be a directory");
  }
  ExpectRefused({{File(".wh..")}}, "whiteout");
  EXPECT_THAT(Merge({{File("a")}, {Directory("."), Directory("/")}}), ElementsAre("/a=data"));
}

TEST(HostileLayerTest, Img03NothingReachesThroughASymlinkedParent) {
  // A directory of the host that the links point to, and that must stay as it is.
  const testing::TemporaryDirectory host;
  std::ofstream(host.path() + "/canary") << "untouched";
  const std::string up = "../../../../../../../.." + host.path();
  struct stat before{};
  ASSERT_EQ(stat(host.path().c_str(), &before), 0);
  for (const std::string& target : {host.path(), up}) {
    for (const bool same_layer : {true, false}) {
      std::vector<ArchiveEntry> upper = {File("l/canary", "changed"), Directory("l/sub", 0777),
                                         With(ArchiveEntry{.path = "l", .type = '0', .data = "x"}, {{"path", "l/f"}}),
                                         HardLink("l/hard", "l/canary"), File("l/.wh.gone")};
      upper[1].user = 4711;
      upper[1].pax = {{"SCHILY.xattr.user.mark", "x"}};
      Layers layers = {{Symlink("l", target)}, upper};
      if (same_layer) {
        layers[0].insert(layers[0].end(), upper.begin(), upper.end());
        layers.pop_back();
      }
      const MergedLayers merged(layers);
      const auto disk = merged.ReadBack();
      ASSERT_TRUE(disk.ok()) << disk.status();
      EXPECT_EQ(disk->at("/l").symlink_target, target);
      // Mode, owner and attribute went to the directory of that path below the image's root.
      const auto& sub = disk->at(host.path() + "/sub");
      EXPECT_EQ(sub.mode, S_IFDIR | 0777U);
      EXPECT_EQ(sub.user, 4711U);
      EXPECT_EQ(sub.attributes.at("user.mark"), "x");
      EXPECT_EQ(disk->at(host.path() + "/canary").links, 2U);
      ExpectOnlyBlobs(merged);
    }
  }
  // A directory's entry replaces a symlink, and says nothing of what the symlink pointed to.
  const MergedLayers replaced(Layers{{Directory("d", 0700), Symlink("l", "d")}, {Directory("l", 0777)}});
  const auto disk = replaced.ReadBack();
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ(disk->at("/d").mode, S_IFDIR | 0700U);
  EXPECT_EQ(disk->at("/l").mode, S_IFDIR | 0777U);
  ExpectRefused({{Symlink("a", "b"), Symlink("b", "a"), File("a/f")}}, "too many symlinks");
  ExpectRefused({{Symlink("a", "a/x"), File("a/f")}}, "too many symlinks");

  std::string canary;
  std::ifstream(host.path() + "/canary") >> canary;
  EXPECT_EQ(canary, "untouched");
  struct stat after{};
  ASSERT_EQ(stat(host.path().c_str(), &after), 0);
  EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
  EXPECT_EQ(after.st_mode, before.st_mode);
}

TEST(HostileLayerTest, Img04HardLinksThatLeadNowhere) {
  ExpectRefused({{HardLink("a", "../../etc/passwd")}}, "\"..\"");
  ExpectRefused({{HardLink("a", "/etc/passwd")}}, "\"etc/passwd\" does not exist");
  // Through a symlink that leads out: the path is one below the root, where there is nothing.
  ExpectRefused({{Symlink("l", "/../../.."), HardLink("a", "l/etc/passwd")}}, "does not exist");
  EXPECT_THAT(Merge({{Symlink("s", "/etc/shadow"), HardLink("h", "s")}}),
              ElementsAre("/h->/etc/shadow", "/s->/etc/shadow"));
  ExpectRefused({{HardLink("b", "a"), File("a")}}, "\"a\" does not exist");
  ExpectRefused({{HardLink("b", "a")}, {File("a")}}, "\"a\" does not exist");
  ExpectRefused({{HardLink("a", "a")}}, "\"a\" does not exist");
  ExpectRefused({{HardLink("a", "")}}, "does not exist");
  ExpectRefused({{HardLink("a", ".")}}, "does not exist");
  ExpectRefused({{File("f"), HardLink("a", "f/g")}}, "does not exist");
  ExpectRefused({{Directory("d"), HardLink("d/e", "d")}}, "is a directory");
  ExpectRefused({{File("a")}, {File(".wh.a"), HardLink("b", "a")}}, "does not exist");
  // A link's own data, owner and attributes do not count.
  ArchiveEntry link = HardLink("b", "a");
  link.user = 99;
  const MergedLayers merged(Layers{{File("a"), link}});
  const auto disk = merged.ReadBack();
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ(disk->at("/b").user, 0U);
  EXPECT_EQ(disk->at("/b").links, 2U);
}

TEST(HostileLayerTest, Img05WhiteoutsHideOnlyWhatIsBelow) {
  const std::vector<ArchiveEntry> lower = {Directory("d"), File("d/a"), File("d/b"), Symlink("s", "d"),
                                           Symlink("up", "../..")};
  EXPECT_THAT(Merge({lower, {File("s/.wh.a"), File("up/.wh.s")}}), ElementsAre("/d/", "/d/b=data", "/up->../.."));
  EXPECT_THAT(Merge({lower, {File("s/.wh..wh..opq")}}), ElementsAre("/d/", "/s->d", "/up->../.."));
  // A whiteout of a symlink takes the symlink.
  EXPECT_THAT(Merge({lower, {File(".wh.s"), File(".wh.up")}}), ElementsAre("/d/", "/d/a=data", "/d/b=data"));
  for (const char* name : {".wh.", "d/.wh.", ".wh..", "d/.wh..", ".wh...", "s/.wh..."}) {
    ExpectRefused({lower, {File(name)}}, "a whiteout must name a file");
  }
  EXPECT_THAT(Merge({lower, {Directory("d"), File("d/new"), File("d/.wh..wh..opq"), File("d/after")}}),
              ElementsAre("/d/", "/d/after=data", "/d/new=data", "/s->d", "/up->../.."));
  EXPECT_THAT(Merge({lower, {Directory("d/.wh..wh..opq"), Symlink(".wh.s", "d")}}), ElementsAre("/d/", "/up->../.."));
  // Of what is not there, and behind a file.
  EXPECT_EQ(Merge({lower, {File("no/.wh.x"), File("d/a/.wh.x"), File(".wh.x")}}).size(), 5U);
  ExpectRefused({lower, {File("d/a/.wh..wh..opq")}}, "is not a directory");
}

TEST(HostileLayerTest, Img06TypesSwappedBetweenLayers) {
  const auto variant = [](int type) {
    return type == 0   ? std::vector<ArchiveEntry>{Directory("x"), File("x/in")}
           : type == 1 ? std::vector<ArchiveEntry>{File("x", "file")}
                       : std::vector<ArchiveEntry>{Symlink("x", "/y")};
  };
  const std::vector<std::vector<std::string>> expected = {{"/x/", "/x/in=data"}, {"/x=file"}, {"/x->/y"}};
  for (int first = 0; first < 3; ++first) {
    for (int second = 0; second < 3; ++second) {
      for (int third = 0; third < 3; ++third) {
        std::vector<std::string> result = expected[static_cast<std::size_t>(third)];
        // Through a symlink "x/in" is put into "y"; a directory on a directory keeps what was there.
        EXPECT_EQ(Merge({variant(first), variant(second), variant(third)}), result) << first << second << third;
      }
    }
  }
  // What is put below a name follows what the name is by then.
  EXPECT_THAT(Merge({{Symlink("x", "y"), Directory("y")}, {File("x/1")}, {Directory("x")}, {File("x/2")}}),
              ElementsAre("/x/", "/x/2=data", "/y/", "/y/1=data"));
  ExpectRefused({{Directory("x"), File("x/in")}, {File("x")}, {File("x/2")}}, "is not a directory");
}

// Everything that goes on in a layer's way from the wire.
Status Unpack(const std::string& compressed, const std::string& diff_id, const LayerLimits& limits = {}) {
  const testing::TemporaryDirectory directory;
  const UniqueFd blob(open((directory.path() + "/blob").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  LayerUnpacker unpacker(Context::Background(), {DigestOf(compressed), compressed.size(), diff_id}, blob.get(), limits);
  HUSK_RETURN_IF_ERROR(unpacker.Write(compressed));
  return unpacker.Finish().status();
}

// A zstd frame's header with a window of this many bytes, a power of two, and one empty block.
std::string ZstdFrameWithWindow(int window_log) {
  return std::string("\x28\xb5\x2f\xfd\x00", 5) + static_cast<char>((window_log - 10) << 3) +
         std::string("\x01\x00\x00", 3);
}

TEST(HostileLayerTest, Img07CompressionBombs) {
  const std::string archive = MakeTar({File("zeros", std::string(std::size_t{16} << 20, '\0'))});
  const LayerLimits limits{.freely_inflated = std::uint64_t{4} << 20};
  for (const std::string& bomb : {testing::Gzip(archive), testing::Zstd(archive)}) {
    EXPECT_GT(archive.size(), bomb.size() * limits.inflation);
    const Status refused = Unpack(bomb, DigestOf(archive), limits);
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("inflate to more than 4194304"));
    // What is worth its size is no bomb.
    EXPECT_TRUE(Unpack(bomb, DigestOf(archive)).ok());
  }
  // A byte for each block of a sparse file: as much on the disk, from next to nothing.
  std::string map = "4000\n";
  for (int i = 0; i < 4000; ++i) map += Concat(i * 4096, "\n1\n");
  map.resize((map.size() + 511) / 512 * 512, '\0');
  const std::string sparse =
      MakeTar({With(File("s", map + std::string(4000, 'x')),
                    {{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.realsize", "16384000"}})});
  EXPECT_EQ(Unpack(sparse, DigestOf(sparse), limits).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Unpack(sparse, DigestOf(sparse)).ok());
}

TEST(HostileLayerTest, Img07MembersJunkAndWindows) {
  const std::string archive = MakeTar({File("a", std::string(3000, 'a')), File("b")});
  const std::string_view view = archive;
  const auto gzip = testing::Gzip(view.substr(0, 1000)) + testing::Gzip("") + testing::Gzip(view.substr(1000));
  const auto zstd = testing::Zstd(view.substr(0, 1000)) + testing::Zstd("") + testing::Zstd(view.substr(1000));
  for (const std::string& members : {gzip, zstd}) {
    EXPECT_TRUE(Unpack(members, DigestOf(archive)).ok());
    for (const std::string& junk : {std::string("j"), std::string("junk"), std::string(5000, '\0')}) {
      const Status refused = Unpack(members + junk, DigestOf(archive));
      EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss) << refused;
    }
    EXPECT_EQ(Unpack(members.substr(0, members.size() - 1), DigestOf(archive)).code(), absl::StatusCode::kDataLoss);
  }
  const auto window = [](int log) {
    Decompressor decompressor([](std::string_view) { return absl::OkStatus(); });
    return decompressor.Write(ZstdFrameWithWindow(log));
  };
  EXPECT_TRUE(window(27).ok()) << window(27);
  for (const int log : {28, 31, 41}) {
    EXPECT_EQ(window(log).code(), absl::StatusCode::kDataLoss) << log;
    EXPECT_THAT(std::string(window(log).message()), HasSubstr("memory")) << log;
  }
}

// A tar stream made entry by entry into a builder, until it refuses.
class Stream {
 public:
  explicit Stream(const LayerLimits& limits = {})
      : fd_(open((directory_.path() + "/blob").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)),
        builder_(fd_.get(), limits),
        reader_(builder_) {}
  Status Write(std::string_view bytes) { return reader_.Write(bytes); }
  StatusOr<std::string> Finish() {
    HUSK_RETURN_IF_ERROR(reader_.Finish());
    return builder_.Finish();
  }

 private:
  testing::TemporaryDirectory directory_;
  UniqueFd fd_;
  LayerBuilder builder_;
  TarReader reader_;
};

// The header of an empty file with a number for its name, made from one with another number.
void Renumber(std::uint32_t number, std::string& header) {
  std::array<char, 9> name{};
  snprintf(name.data(), name.size(), "%08u", number);
  header.replace(0, 8, name.data(), 8);
  std::uint32_t sum = 8U * ' ';
  for (std::size_t i = 0; i < header.size(); ++i) {
    if (i < 148 || i >= 156) sum += static_cast<unsigned char>(header[i]);
  }
  std::array<char, 8> digits{};
  snprintf(digits.data(), digits.size(), "%06o", sum);
  header.replace(148, 7, digits.data(), 7);
}

TEST(HostileLayerTest, Img08TenMillionEmptyFiles) {
  // A hundredth of both, to save the test's time.
  EXPECT_EQ(LayerLimits().entries, 2'097'152U);
  Stream stream({.entries = 20'971});
  std::string header = TarEntryBytes(File("00000000", ""));
  constexpr std::uint32_t kFiles = 100'000;
  Status status;
  std::uint32_t files = 0;
  for (; status.ok() && files < kFiles; ++files) {
    Renumber(files, header);
    status = stream.Write(header);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("more than 20971 entries"));
  EXPECT_EQ(files, 20'972U);
}

TEST(HostileLayerTest, Img08NamesAndAttributesThatFillMemory) {
  const LayerLimits limits{.index_bytes = 10'000};
  Stream stream(limits);
  const std::string entry = TarEntryBytes(With(File("f", ""), {{"path", std::string(200, 'n')}}));
  Status status;
  for (int i = 0; status.ok() && i < 1000; ++i) status = stream.Write(entry);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("exceed 10000 bytes after "));
}

std::string IndexOf(const std::vector<ArchiveEntry>& entries) {
  Stream stream;
  EXPECT_TRUE(stream.Write(MakeTar(entries)).ok());
  return stream.Finish().value_or("");
}

// Applies the same layer again and again; returns what ends it.
Status ApplyRepeatedly(const std::vector<ArchiveEntry>& entries, const MergeLimits& limits) {
  const std::string index = IndexOf(entries);
  ImageTree tree(limits);
  for (std::uint32_t i = 0; i < 100; ++i) {
    HUSK_ASSIGN_OR_RETURN(const LayerIndexReader reader, LayerIndexReader::Parse(index));
    HUSK_RETURN_IF_ERROR(tree.ApplyLayer(reader, 0));
  }
  return absl::OkStatus();
}

TEST(HostileLayerTest, Img08LayersThatFillMemoryTogether) {
  const auto expect = [](const Status& status, const std::string& what) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
    EXPECT_THAT(std::string(status.message()), HasSubstr("the layer's entry"));
  };
  const std::vector<ArchiveEntry> files = {File("a"), File("b"), HardLink("c", "a"),
                                           Symlink("s", std::string(90, 't'))};
  EXPECT_TRUE(ApplyRepeatedly(files, {}).ok());
  expect(ApplyRepeatedly(files, {.names = 50}), "more than 50 files");
  expect(ApplyRepeatedly(files, {.text_bytes = 500}), "exceed 500 bytes");
  expect(
      ApplyRepeatedly({With(Directory("d"), {{"SCHILY.xattr.user.a", std::string(400, 'v')}})}, {.text_bytes = 30'000}),
      "exceed 30000 bytes");
  // Symlinks that lead to and fro, opaque markers over a large tree.
  std::vector<ArchiveEntry> detours = {Directory("d")};
  std::string winding;
  while (winding.size() < 4000) winding += "d/../";
  detours.push_back(With(Symlink("l", ""), {{"linkpath", winding}}));
  detours.push_back(File("l/l/l/l/f"));
  expect(ApplyRepeatedly(detours, {.steps = 100'000}), "too long to follow");
  std::string slashes(4000, '/');
  expect(ApplyRepeatedly({Directory("d"), With(Symlink("l", ""), {{"linkpath", slashes}}), File("l/l/l/f")},
                         {.path_bytes = 100'000}),
         "too long to follow");
  std::vector<ArchiveEntry> markers;
  for (int i = 0; i < 100; ++i) markers.push_back(Directory(Concat("d/", i)));
  for (int i = 0; i < 100; ++i) markers.push_back(File("d/.wh..wh..opq"));
  expect(ApplyRepeatedly(markers, {.steps = 100'000}), "too long to follow");
}

TEST(HostileLayerTest, Img08DirectoriesTenThousandDeep) {
  // In one name.
  std::string path;
  for (int i = 0; i < 10'000; ++i) path += "d/";
  ExpectRefused({{With(Directory("x"), {{"path", path}})}}, "4096");
  // Step by step, each symlink leading a few hundred directories further down.
  std::vector<ArchiveEntry> entries;
  const std::string hundred = path.substr(0, 200);
  entries.push_back(With(Symlink("l0", ""), {{"linkpath", hundred}}));
  for (int i = 1; i < 100; ++i) {
    entries.push_back(With(Symlink(Concat("l", i), ""), {{"linkpath", Concat("l", i - 1, "/", hundred)}}));
  }
  for (int i = 0; i < 39; ++i) entries.push_back(File(Concat("l", i, "/f"), ""));
  const MergedLayers merged(Layers{entries});
  EXPECT_EQ(merged.status.code(), absl::StatusCode::kResourceExhausted) << merged.status;
  EXPECT_THAT(std::string(merged.status.message()), HasSubstr("more than 512 directories within each other"));
  ExpectOnlyBlobs(merged);
  // The deepest that is allowed is a sound disk, to fsck.erofs too.
  entries.assign({With(Directory("x"), {{"path", path.substr(0, 2 * 512 - 1)}})});
  const MergedLayers deepest(Layers{entries});
  const auto disk = deepest.ReadBack();
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ(disk->size(), 513U);
  ASSERT_TRUE(deepest.WriteDisk(deepest.directory.path() + "/disk").ok());
  const Status checked = testing::RunTool({"/usr/bin/fsck.erofs", deepest.directory.path() + "/disk"}).status();
  EXPECT_TRUE(checked.ok()) << checked;
}

TEST(HostileLayerTest, Img08ASparseTebibyteTakesNoSpace) {
  const auto sparse = [](const std::string& name, std::uint64_t size) {
    return With(File(name, "end"), {{"GNU.sparse.major", "0"},
                                    {"GNU.sparse.size", std::to_string(size)},
                                    {"GNU.sparse.map", Concat(size - 3, ",3")}});
  };
  constexpr std::uint64_t kTebibyte = std::uint64_t{1} << 40;
  const MergedLayers merged(Layers{{sparse("s", kTebibyte)}});
  const auto disk = merged.ReadBack();
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ(disk->at("/s").size, kTebibyte);
  EXPECT_EQ(merged.lengths, std::vector<std::uint64_t>{kTebibyte});
  struct stat info{};
  ASSERT_EQ(stat((merged.directory.path() + "/blob0").c_str(), &info), 0);
  EXPECT_LT(info.st_blocks, 1000);
  // More than an image can address.
  const MergedLayers more(Layers{{sparse("s", 3 * kTebibyte), sparse("too-much", 3 * kTebibyte)}});
  EXPECT_EQ(more.status.code(), absl::StatusCode::kResourceExhausted) << more.status;
  EXPECT_THAT(std::string(more.status.message()), HasSubstr("too-much"));
  ExpectRefused({{sparse("s", std::uint64_t{1} << 63)}}, "sparse");
}

TEST(HostileLayerTest, Img08SizesThatAreNoSizes) {
  const auto with_size = [](std::string_view field) {
    std::string bytes = TarEntryBytes(File("f", ""));
    bytes.replace(124, field.size(), field);
    std::uint32_t sum = 8U * ' ';
    for (std::size_t i = 0; i < 512; ++i) {
      if (i < 148 || i >= 156) sum += static_cast<unsigned char>(bytes[i]);
    }
    std::array<char, 8> digits{};
    snprintf(digits.data(), digits.size(), "%06o", sum);
    return bytes.replace(148, 7, digits.data(), 7) + std::string(1024, '\0');
  };
  const auto status = [&](std::string_view field) { return MergedLayers({with_size(field)}).status; };
  ExpectRefusal(status("-0000000001"), "negative size");
  ExpectRefusal(status("00000000008"), "not octal");
  ExpectRefusal(status("0x000000010"), "not octal");
  // Twelve octal digits are 64 GiB: a number, but the archive ends long before.
  ExpectRefusal(status("777777777777"), "ends within an entry");
  ExpectRefusal(status("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "negative size");
  ExpectRefusal(status(std::string_view("\xc0\0\0\0\0\0\0\0\0\0\0\1", 12)), "too large");
  ExpectRefusal(status("\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "too large");
  // 2^63 - 1 bytes: more than a layer may have.
  const Status most = status(std::string_view("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12));
  EXPECT_EQ(most.code(), absl::StatusCode::kInvalidArgument) << most;
  const Status large = status(std::string_view("\x80\0\0\0\x00\x00\x10\0\0\0\0\0", 12));
  EXPECT_EQ(large.code(), absl::StatusCode::kResourceExhausted) << large;
  EXPECT_THAT(std::string(large.message()), HasSubstr("\"f\""));
}

TEST(HostileLayerTest, Img09PaxHeaders) {
  const auto pax = [](const std::string& data) { return TarEntryBytes({.path = "p", .type = 'x', .data = data}); };
  const std::string end(1024, '\0');
  const auto status = [&](const std::string& archive) { return MergedLayers({archive}).status; };
  // Headers for headers: the last in front of an entry counts, and the stream must come to an entry.
  const std::string path = testing::PaxRecord("path", "named");
  EXPECT_THAT(
      MergedLayers({pax(testing::PaxRecord("path", "other")) + pax(path) + TarEntryBytes(File("f")) + end}).List(),
      ElementsAre("/named=data"));
  ExpectRefusal(status(pax(path) + pax(path) + end), "header without its entry");
  std::string many;
  for (int i = 0; i < 2000; ++i) many += pax(testing::PaxRecord("size", "4")) + LongName("again").substr(0, 1024);
  EXPECT_THAT(MergedLayers({many + TarEntryBytes(File("f")) + end}).List(), ElementsAre("/again=data"));
  // A size in a header is for the entry, not for a header in between.
  EXPECT_THAT(MergedLayers({pax(testing::PaxRecord("size", "0")) + pax(path) + TarEntryBytes(File("f")) + end}).List(),
              ElementsAre("/named=data"));
  for (const char* wrong :
       {"999 path=a\n", "0 path=a\n", "-9 path=a\n", "3 a", "11 path=abcdefg", "path=a\n",
        "99999999999999999999 path=a\n", "9 path=a\nx", "6 =ab\n", "10 noequals\n", " 9 path=a\n"}) {
    ExpectRefusal(status(pax(wrong) + TarEntryBytes(File("f")) + end), "PAX");
  }
  // Sizes that are not what follows.
  ExpectRefusal(status(MakeTar({With(File("f"), {{"size", "-1"}})})), "size");
  ExpectRefusal(status(MakeTar({With(File("f"), {{"size", "9223372036854775808"}})})), "size");
  ExpectRefusal(status(MakeTar({With(File("f"), {{"size", "4x"}})})), "size");
  ExpectRefusal(status(MakeTar({With(File("f"), {{"size", "100000"}})})), "ends within an entry");
  ExpectRefusal(status(MakeTar({With(File("f", std::string(600, 'x')), {{"size", "3"}}), File("g")})), "checksum");
  ExpectRefusal(status(MakeTar({With(File("f"), {{"GNU.sparse.major", "1"}, {"GNU.sparse.realsize", "9"}})})),
                "sparse");
  // Keys that come again: the last one counts, and an empty one takes it away.
  EXPECT_THAT(Merge({{With(File("f"), {{"path", "one"}, {"path", "two"}})}}), ElementsAre("/two=data"));
  EXPECT_THAT(Merge({{With(File("f"), {{"path", "one"}, {"path", ""}})}}), ElementsAre("/f=data"));
  const MergedLayers merged(Layers{{With(File("f"), {{"SCHILY.xattr.user.a", "1"}, {"SCHILY.xattr.user.a", "2"}})}});
  EXPECT_EQ(merged.ReadBack()->at("/f").attributes, (std::map<std::string, std::string>{{"user.a", "2"}}));
}

TEST(HostileLayerTest, Img10ExtendedAttributes) {
  const std::string capability("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  const std::string largest(65535, 'v');
  const ArchiveEntry entry = With(Directory("d"), {{"SCHILY.xattr.trusted.overlay.redirect", "/etc"},
                                                   {"SCHILY.xattr.trusted.overlay.opaque", "y"},
                                                   {"SCHILY.xattr.trusted.overlay.overlay.opaque", "y"},
                                                   {"SCHILY.xattr.user.overlay.metacopy", "y"},
                                                   {"SCHILY.xattr.trusted.other", "t"},
                                                   {"SCHILY.xattr.security.capability", capability},
                                                   {"SCHILY.xattr.user.largest", largest},
                                                   {"SCHILY.xattr.user.", "no name"},
                                                   {"SCHILY.xattr.system.data", "no such"}});
  const MergedLayers merged(Layers{{entry}});
  const auto disk = merged.ReadBack();
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ(disk->at("/d").attributes,
            (std::map<std::string, std::string>{
                {"trusted.other", "t"}, {"security.capability", capability}, {"user.largest", largest}}));
  ASSERT_TRUE(merged.WriteDisk(merged.directory.path() + "/disk").ok());
  const Status checked = testing::RunTool({"/usr/bin/fsck.erofs", merged.directory.path() + "/disk"}).status();
  EXPECT_TRUE(checked.ok()) << checked;
  ExpectRefused({{With(File("f"), {{"SCHILY.xattr.user.a", std::string(65536, 'v')}})}}, "user.a is longer than 65535");
  ExpectRefused({{With(File("f"), {{"SCHILY.xattr.user." + std::string(300, 'n'), "v"}})}}, "malformed");
  ExpectRefused({{With(File("f"), {{std::string("SCHILY.xattr.user.\0x", 20), "v"}})}}, "malformed");
  ArchiveEntry many = File("f");
  for (int i = 0; i < 5; ++i) many.pax.emplace_back(Concat("SCHILY.xattr.user.", i), std::string(60'000, 'v'));
  ExpectRefused({{many}}, "256 KiB");
}

TEST(HostileLayerTest, Img11DevicesAreInTheImageOnly) {
  ArchiveEntry setuid = File("su");
  setuid.mode = 06755;
  const MergedLayers merged(Layers{{{.path = "disk", .type = '4', .mode = 0660, .device_major = 8, .device_minor = 300},
                                    {.path = "null", .type = '3', .mode = 0666, .device_major = 1, .device_minor = 3},
                                    {.path = "whiteout", .type = '3', .mode = 0},
                                    {.path = "pipe", .type = '6', .mode = 0600},
                                    setuid}});
  const auto disk = merged.ReadBack();
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ(disk->at("/disk").mode, S_IFBLK | 0660U);
  EXPECT_EQ(disk->at("/disk").device, (8U << 8) | (300 & 0xff) | (300 & ~0xff) << 12);
  EXPECT_EQ(disk->at("/null").device, (1U << 8) | 3);
  EXPECT_EQ(disk->at("/pipe").mode, S_IFIFO | 0600U);
  EXPECT_EQ(disk->at("/su").mode, S_IFREG | 06755U);
  ExpectOnlyBlobs(merged);
  struct stat info{};
  ASSERT_EQ(stat((merged.directory.path() + "/blob0").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07111, 0U);
  // Tar has no type for sockets; what some archivers invented is refused.
  ExpectRefused({{{.path = "socket", .type = 's'}}}, "unknown type");
  ExpectRefused({{{.path = "d", .type = '3', .device_major = 4096}}}, "device number");
}

TEST(HostileLayerTest, Img15RawFileSystemsAreNoTar) {
  std::string erofs(std::size_t{1} << 16, '\0');
  erofs.replace(1024, 4, "\xe2\xe1\xf5\xe0");
  std::string ext4(std::size_t{1} << 16, '\0');
  ext4.replace(1024 + 56, 2, "\x53\xef");
  std::string with_boot_sector = ext4;
  with_boot_sector.replace(0, 3, "\xeb\x3c\x90");
  for (const std::string& raw : {erofs, ext4, with_boot_sector, std::string("#!/bin/sh\n"), std::string(700, 'x')}) {
    for (const std::string& wire : {raw, testing::Gzip(raw), testing::Zstd(raw)}) {
      const Status status = Unpack(wire, DigestOf(raw));
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("tar"));
    }
  }
}

}  // namespace
}  // namespace husk::images
