// A layer's way from the wire to its blob, its index and its disk. The first byte says how the archive comes: its low
// two bits are plain, gzip, zstd, or as the input has it; the next two how it is cut into pieces.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "agent/common/unique_fd.h"
#include "images/decompressor.h"
#include "images/digest.h"
#include "images/fuzz/merged_disk.h"
#include "images/fuzz/require.h"
#include "images/fuzz/tar_mutator.h"
#include "images/layer_index.h"
#include "images/layer_unpacker.h"
#include "images/testing/archive.h"
#include "images/text.h"

namespace husk::images::fuzz {
namespace {

constexpr LayerLimits kLimits = {
    .entries = 300, .index_bytes = 64 << 10, .freely_inflated = std::uint64_t{2} << 20, .inflation = 10};
// Above what may be inflated of the largest input; the decompressor itself has no limit.
constexpr std::size_t kMaximumArchive = std::size_t{4} << 20;

struct Unpacked {
  Status status;
  std::string index;
  std::string data;  // the blob's beginning
};

// A file in memory, used again and again.
int BlobFile() {
  static const UniqueFd file(memfd_create("blob", MFD_CLOEXEC));
  Require(file.valid() && ftruncate(file.get(), 0) == 0, "there is a file to write to");
  return file.get();
}

std::string Beginning(int file) {
  struct stat info{};
  Require(fstat(file, &info) == 0, "the blob has a length");
  constexpr off_t kCompared = 1 << 20;
  std::string data(static_cast<std::size_t>(std::min(info.st_size, kCompared)), '\0');
  Require(pread(file, data.data(), data.size(), 0) == static_cast<ssize_t>(data.size()), "the blob can be read");
  return data;
}

void RequireBlob(int file, std::uint64_t length) {
  struct stat info{};
  Require(fstat(file, &info) == 0 && static_cast<std::uint64_t>(info.st_size) == length,
          "the blob has the length that its index says");
  constexpr std::uint64_t kSector = 512;
  const std::uint64_t most = std::max<std::uint64_t>(kLimits.freely_inflated, kMaximumArchive) + (2 << 20);
  Require(static_cast<std::uint64_t>(info.st_blocks) * kSector <= most, "a blob's data are within the limits");
}

Unpacked Unpack(std::string_view wire, const LayerUnpacker::Expected& expected, std::size_t piece) {
  const int file = BlobFile();
  LayerUnpacker unpacker(Context::Background(), expected, file, kLimits);
  for (; !wire.empty(); wire.remove_prefix(std::min(piece, wire.size()))) {
    if (Status written = unpacker.Write(wire.substr(0, piece)); !written.ok()) return {std::move(written), "", ""};
  }
  StatusOr<std::string> index = unpacker.Finish();
  if (!index.ok()) return {index.status(), "", ""};
  const StatusOr<LayerIndexReader> reader = LayerIndexReader::Parse(*index);
  Require(reader.ok(), "a layer that is unpacked has an index");
  RequireBlob(file, reader->blob_length());
  return {absl::OkStatus(), *std::move(index), Beginning(file)};
}

void RequireSafePath(std::string_view path) {
  Require(path.size() <= kMaximumPath && path.find('\0') == std::string_view::npos, "a path is one");
  if (path.empty()) return;
  std::size_t start = 0;
  while (true) {
    const std::size_t end = path.find('/', start);
    const std::string_view name = path.substr(start, end == std::string_view::npos ? end : end - start);
    Require(!name.empty() && name != "." && name != ".." && name.size() <= kMaximumName,
            Concat("a path stays below the root: ", Printable(path)));
    if (end == std::string_view::npos) return;
    start = end + 1;
  }
}

void RequireSound(const LayerEntry& entry, std::uint64_t data_end, std::uint64_t blob_length) {
  const TarEntry& file = entry.file;
  RequireSafePath(file.path);
  if (file.type == EntryType::kHardLink) RequireSafePath(file.link_target);
  Require(file.mode <= 07777 && file.mtime_nanoseconds < 1'000'000'000, "numbers are in their range");
  for (const ExtendedAttribute& attribute : file.attributes) {
    Require(attribute.name.size() <= kMaximumName && attribute.value.size() <= kMaximumAttributeValue,
            "attributes are within the limits");
    Require(attribute.name.find(".overlay.") == std::string::npos || attribute.name.starts_with("security.") ||
                attribute.name.find(".overlay.") > std::string_view("trusted").size(),
            "overlayfs has nothing to obey");
  }
  if (file.size == 0) return;
  Require(file.type == EntryType::kRegular, "only files have data");
  Require(entry.data_offset % kBlockSize == 0 && entry.data_offset >= data_end, "data lie one after the other");
  Require(file.size <= blob_length && entry.data_offset <= blob_length - file.size, "data lie in the blob");
}

void RequireSoundLayer(const std::string& index) {
  StatusOr<LayerIndexReader> reader = LayerIndexReader::Parse(index);
  Require(reader.ok() && reader->blob_length() <= kMaximumBlob, "an index can be read");
  const LayerIndexReader all = *reader;
  LayerEntry entry;
  std::uint64_t entries = 0;
  std::uint64_t data_end = 0;
  while (true) {
    const StatusOr<bool> more = reader->Next(entry);
    Require(more.ok(), Concat("an entry that was written can be read: ", more.status().message()));
    if (!*more) break;
    RequireSound(entry, data_end, reader->blob_length());
    if (entry.file.size > 0) data_end = entry.data_offset + entry.file.size;
    ++entries;
  }
  Require(entries <= kLimits.entries && index.size() <= kLimits.index_bytes + 1024, "a layer is within its limits");
  ImageTree tree;
  const Status applied = tree.ApplyLayer(all, 0);
  if (applied.ok()) {
    RequireSameOnDisk(tree, {all.blob_length()});
    return;
  }
  Require(absl::IsInvalidArgument(applied) || absl::IsResourceExhausted(applied),
          Concat("a layer is at fault, or too large: ", applied.message()));
  RequireSoundError(applied);
}

StatusOr<std::string> Inflate(std::string_view wire) {
  std::string archive;
  Decompressor decompressor([&archive](std::string_view bytes) {
    archive += bytes;
    return archive.size() <= kMaximumArchive ? absl::OkStatus() : absl::ResourceExhaustedError("large");
  });
  HUSK_RETURN_IF_ERROR(decompressor.Write(wire));
  HUSK_RETURN_IF_ERROR(decompressor.Finish());
  return archive;
}

void Run(std::uint8_t choice, std::string_view input) {
  static constexpr std::array<std::size_t, 4> kPieces = {1, 7, 512, 4099};
  const int form = choice & 3;
  const std::string wire = form == 1 ? testing::Gzip(input) : form == 2 ? testing::Zstd(input) : std::string(input);
  const StatusOr<std::string> archive = Inflate(wire);
  if (form == 1 || form == 2) Require(archive.ok() && *archive == input, "what was compressed comes back");
  const LayerUnpacker::Expected expected = {
      .digest = DigestOf(wire), .size = wire.size(), .diff_id = DigestOf(archive.ok() ? *archive : "")};
  const Unpacked whole = Unpack(wire, expected, wire.size() + 1);
  const Unpacked pieces = Unpack(wire, expected, kPieces[choice >> 2 & 3U]);
  // Of two faults either may be found first.
  Require(whole.status.ok() == pieces.status.ok(),
          Concat("pieces do not matter: ", whole.status.ToString(), ", ", pieces.status.ToString()));
  Require(whole.index == pieces.index && whole.data == pieces.data, "pieces make the same layer");
  if (!whole.status.ok()) return RequireSoundError(whole.status);
  Require(archive.ok(), "what was unpacked can be inflated");
  RequireSoundLayer(whole.index);
}

}  // namespace
}  // namespace husk::images::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0) husk::images::fuzz::Run(*data, husk::images::fuzz::AsText(data + 1, size - 1));
  return 0;
}

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned int seed) {
  // libFuzzer's own mutation; then, mostly, made an archive again.
  const std::size_t kept = husk::images::fuzz::MoveTarBlock(data, size, max_size, seed);
  size = kept != 0 ? kept : LLVMFuzzerMutate(data, size, max_size);
  constexpr unsigned int kLeftDamaged = 16;
  if (size > 1 && seed % kLeftDamaged != 0) husk::images::fuzz::MendTar(data + 1, size - 1);
  return size;
}
