#include "images/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "images/testing/archive.h"

namespace husk::images {
namespace {

using testing::ArchiveEntry;
using testing::Directory;
using testing::File;
using ::testing::HasSubstr;
using testing::MakeTar;
using testing::TarEntryBytes;

struct ReadEntry {
  TarEntry entry;
  std::string data;
};

class Collector : public TarReader::Visitor {
 public:
  Status OnEntry(TarEntry entry) override {
    // Files of tests are small; a claim of more is not to be believed.
    data.push_back({entry, std::string(entry.size > (1U << 24) ? 0 : entry.size, '\0')});
    return absl::OkStatus();
  }
  Status OnData(std::uint64_t offset, std::string_view bytes) override {
    data.back().data.replace(offset, bytes.size(), bytes);
    return absl::OkStatus();
  }
  Status OnEntryEnd() override { return absl::OkStatus(); }
  std::vector<ReadEntry> data;
};

StatusOr<std::vector<ReadEntry>> Read(std::string_view archive, std::size_t piece) {
  Collector collector;
  TarReader reader(collector);
  while (!archive.empty()) {
    HUSK_RETURN_IF_ERROR(reader.Write(archive.substr(0, piece)));
    archive.remove_prefix(std::min(piece, archive.size()));
  }
  HUSK_RETURN_IF_ERROR(reader.Finish());
  return std::move(collector.data);
}

StatusOr<std::vector<ReadEntry>> Read(std::string_view archive) {
  return Read(archive, std::size_t{1} << 20);
}

// Written by libarchive, so that the reader is not only checked against archives of this test's own making.
std::string WriteWithLibarchive(int (*format)(struct archive*), bool sparse) {
  std::string bytes(std::size_t{4} << 20, '\0');
  std::size_t used = 0;
  archive* const writer = archive_write_new();
  EXPECT_EQ(format(writer), ARCHIVE_OK);
  EXPECT_EQ(archive_write_open_memory(writer, bytes.data(), bytes.size(), &used), ARCHIVE_OK);
  const auto add = [writer](const std::string& path, mode_t type, const std::string& data, bool hole) {
    archive_entry* const entry = archive_entry_new();
    archive_entry_copy_pathname(entry, path.c_str());
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, 0640);
    archive_entry_set_uid(entry, 3'000'000'000);
    archive_entry_set_gid(entry, 7);
    archive_entry_set_mtime(entry, 1'234'567'890, 987'654'321);
    archive_entry_set_size(entry, static_cast<la_int64_t>(data.size()));
    if (type == AE_IFLNK) archive_entry_copy_symlink(entry, "target");
    constexpr int kPart = 4096;
    if (hole) archive_entry_sparse_add_entry(entry, kPart, kPart);
    EXPECT_EQ(archive_write_header(writer, entry), ARCHIVE_OK) << archive_error_string(writer);
    archive_write_data(writer, data.data(), data.size());
    archive_entry_free(entry);
  };
  add("directory", AE_IFDIR, "", false);
  add("directory/" + std::string(200, 'n') + "/" + std::string(200, 'm'), AE_IFREG, std::string(10'000, 'x'), false);
  add("link", AE_IFLNK, "", false);
  if (sparse) add("sparse", AE_IFREG, std::string(4096, '\0') + std::string(4096, 's') + std::string(4096, '\0'), true);
  EXPECT_EQ(archive_write_close(writer), ARCHIVE_OK);
  archive_write_free(writer);
  bytes.resize(used);
  return bytes;
}

void ExpectLibarchiveEntries(const std::vector<ReadEntry>& entries, bool nanoseconds) {
  ASSERT_GE(entries.size(), 3U);
  EXPECT_EQ(entries[0].entry.type, EntryType::kDirectory);
  EXPECT_EQ(entries[1].entry.path, "directory/" + std::string(200, 'n') + "/" + std::string(200, 'm'));
  EXPECT_EQ(entries[1].data, std::string(10'000, 'x'));
  EXPECT_EQ(entries[1].entry.mode, 0640U);
  EXPECT_EQ(entries[1].entry.user, 3'000'000'000U);
  EXPECT_EQ(entries[1].entry.group, 7U);
  EXPECT_EQ(entries[1].entry.mtime, 1'234'567'890);
  EXPECT_EQ(entries[1].entry.mtime_nanoseconds, nanoseconds ? 987'654'321U : 0U);
  EXPECT_EQ(entries[2].entry.type, EntryType::kSymlink);
  EXPECT_EQ(entries[2].entry.link_target, "target");
}

TEST(TarReaderTest, ReadsWhatLibarchiveWrites) {
  for (const std::size_t piece : {std::size_t{1}, std::size_t{511}, std::size_t{1} << 20}) {
    const auto pax = Read(WriteWithLibarchive(archive_write_set_format_pax, true), piece);
    ASSERT_TRUE(pax.ok()) << pax.status();
    ExpectLibarchiveEntries(*pax, true);
    ASSERT_EQ(pax->size(), 4U);
    EXPECT_EQ((*pax)[3].entry.path, "sparse");
    EXPECT_EQ((*pax)[3].data, std::string(4096, '\0') + std::string(4096, 's') + std::string(4096, '\0'));
    const auto gnu = Read(WriteWithLibarchive(archive_write_set_format_gnutar, false), piece);
    ASSERT_TRUE(gnu.ok()) << gnu.status();
    ExpectLibarchiveEntries(*gnu, false);
  }
}

TEST(TarReaderTest, NamesAreBytes) {
  const std::string name = "caf\xe9\xff";  // not UTF-8
  ArchiveEntry entry = File("short");
  entry.pax = {{"path", name}, {"SCHILY.xattr.user.a", std::string("\0=\n", 3)}};
  const auto entries = Read(MakeTar({entry, File(name)}));
  ASSERT_TRUE(entries.ok()) << entries.status();
  EXPECT_EQ((*entries)[0].entry.path, name);
  EXPECT_EQ((*entries)[0].entry.attributes, (std::vector<ExtendedAttribute>{{"user.a", std::string("\0=\n", 3)}}));
  EXPECT_EQ((*entries)[1].entry.path, name);
  EXPECT_TRUE((*entries)[1].entry.attributes.empty());
}

TEST(TarReaderTest, OldGnuSparseFiles) {
  std::string header = TarEntryBytes({.path = "s", .type = 'S', .data = "abcdef"});
  const auto put = [&header](std::size_t offset, const std::string& text) {
    header.replace(offset, text.size(), text);
  };
  put(257, std::string("ustar  \0", 8));
  put(345, std::string(155, '\0'));
  put(386, "00000000002");  // three bytes at 2, three at 10
  put(398, "00000000003");
  put(410, "00000000012");
  put(422, "00000000003");
  put(483, "00000000024");  // 20 bytes
  put(148, "        ");
  std::uint64_t sum = 0;
  for (const char c : header.substr(0, 512)) sum += static_cast<unsigned char>(c);
  char digits[8];
  snprintf(digits, sizeof(digits), "%06o", static_cast<unsigned>(sum));
  put(148, std::string(digits, 7));
  const auto entries = Read(header + std::string(1024, '\0'), 7);
  ASSERT_TRUE(entries.ok()) << entries.status();
  EXPECT_EQ((*entries)[0].data, std::string("\0\0abc\0\0\0\0\0def\0\0\0\0\0\0\0", 20));
}

TEST(TarReaderTest, PaxOverridesSizesAndOwners) {
  ArchiveEntry entry = File("a", "12345");
  entry.pax = {{"size", "5"}, {"uid", "4294967294"}, {"mtime", "-1.25"}, {"mtime", "-2.5"}, {"comment", "x"}};
  const auto entries = Read(MakeTar({entry, File("b", "z")}));
  ASSERT_TRUE(entries.ok()) << entries.status();
  EXPECT_EQ((*entries)[0].data, "12345");
  EXPECT_EQ((*entries)[0].entry.user, 4294967294U);
  EXPECT_EQ((*entries)[0].entry.mtime, -3);
  EXPECT_EQ((*entries)[0].entry.mtime_nanoseconds, 500'000'000U);
  EXPECT_EQ((*entries)[1].data, "z");
}

TEST(TarReaderTest, RefusesMalformedArchives) {
  const auto with_pax = [](const std::string& key, const std::string& value) {
    ArchiveEntry entry = File("a");
    entry.pax = {{key, value}};
    return MakeTar({entry});
  };
  std::string bad_checksum = MakeTar({File("a")});
  bad_checksum[0] = 'b';
  const std::map<std::string, std::string> archives = {
      {"checksum", bad_checksum},
      {"cut in data", MakeTar({File("a", std::string(5000, 'x'))}).substr(0, 3000)},
      {"cut in header", MakeTar({File("a"), File("b")}).substr(0, 1200)},
      {"cut after pax", with_pax("path", "x").substr(0, 1024)},
      {"negative size", with_pax("size", "-1")},
      {"huge size", with_pax("size", "99999999999999999999")},
      {"uid -1", with_pax("uid", "4294967295")},
      {"mtime", with_pax("mtime", "yesterday")},
      {"unknown type", MakeTar({{.path = "a", .type = 'Z'}})},
      {"pax length", MakeTar({{.path = "x", .type = 'x', .data = "999 path=a\n"}, File("a")})},
      {"pax short", MakeTar({{.path = "x", .type = 'x', .data = "3 a"}, File("a")})},
      {"sparse overlap", with_pax("GNU.sparse.map", "0,4,2,4")},
      {"sparse without data", with_pax("GNU.sparse.map", "0,1000000")},
      {"pax then end", TarEntryBytes({.path = "x", .type = 'x', .data = "8 p=qrs\n"}) + std::string(1024, '\0')},
      {"ext4", std::string(1024, '\0') + std::string(1024, 'e')},
      {"erofs", std::string(1024, '\0') + "\xe2\xe1\xf5\xe0" + std::string(3068, '\0')},
      {"text", std::string(2048, 't')},
  };
  for (const auto& [what, archive] : archives) {
    const auto result = Read(archive);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << what << ": " << result.status();
  }
}

TEST(TarReaderTest, BoundsMetadata) {
  std::string huge = TarEntryBytes({.path = "x", .type = 'x', .data = std::string(5U << 20, 'x')});
  EXPECT_THAT(std::string(Read(huge).status().message()), HasSubstr("4 MiB"));
  std::string globals;
  for (int i = 0; i < 80; ++i) {
    globals +=
        TarEntryBytes({.path = "g",
                       .type = 'g',
                       .data = testing::PaxRecord("SCHILY.xattr.user." + std::to_string(i), std::string(1000, 'v'))});
  }
  EXPECT_THAT(std::string(Read(globals).status().message()), HasSubstr("64 KiB"));
}

TEST(TarReaderTest, AcceptsWhatOthersAccept) {
  EXPECT_EQ(Read("")->size(), 0U);
  EXPECT_EQ(Read(std::string(10240, '\0'))->size(), 0U);
  // No end-of-archive blocks, and a V7 directory.
  const auto entries = Read(TarEntryBytes({.path = "d/", .type = '\0'}) + TarEntryBytes(Directory("e")));
  ASSERT_TRUE(entries.ok()) << entries.status();
  EXPECT_EQ((*entries)[0].entry.type, EntryType::kDirectory);
  // Numbers that do not fit into octal.
  ArchiveEntry large = File("a");
  large.user = 4'000'000'000;
  EXPECT_EQ((*Read(MakeTar({large})))[0].entry.user, 4'000'000'000U);
}

TEST(TarNumberTest, OctalAndBase256) {
  EXPECT_EQ(*ParseTarNumber(std::string_view("0000644\0", 8)), 0644);
  EXPECT_EQ(*ParseTarNumber("   17 "), 15);
  EXPECT_EQ(*ParseTarNumber(std::string_view("\0\0\0", 3)), 0);
  EXPECT_EQ(*ParseTarNumber("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), -2);
  EXPECT_EQ(*ParseTarNumber(std::string_view("\x80\0\0\0\0\0\0\0\0\0\1\0", 12)), 256);
  EXPECT_FALSE(ParseTarNumber("\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").ok());
  EXPECT_FALSE(ParseTarNumber("12x").ok());
  EXPECT_FALSE(ParseTarNumber("89").ok());
}

}  // namespace
}  // namespace husk::images
