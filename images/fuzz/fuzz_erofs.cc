// Layers made out of the input's bytes, merged, written as EROFS, read back, compared. The bytes mean the entries of up
// to three layers; see MakeEntry. Names come from a short list so that entries meet.
#include <array>
#include <map>

#include "images/byte_codec.h"
#include "images/fuzz/merged_disk.h"
#include "images/fuzz/require.h"
#include "images/layer_index.h"
#include "images/text.h"

namespace husk::images::fuzz {
namespace {

constexpr std::size_t kMaximumLayers = 3;
constexpr std::size_t kMaximumEntries = 200;

const std::string& Name(std::uint8_t number) {
  static const std::array<std::string, 16> kNames = {"a",
                                                     "b",
                                                     "c",
                                                     "etc",
                                                     "usr",
                                                     "lib",
                                                     "-",
                                                     "!",
                                                     "\xff\xfe",
                                                     "name with spaces",
                                                     std::string(255, 'n'),
                                                     std::string(254, 'n') + "m",
                                                     ".wh.a",
                                                     ".wh.b",
                                                     ".wh..wh..opq",
                                                     ".wh..wh.aufs"};
  return kNames[number % kNames.size()];
}

std::string Path(ByteReader& bytes) {
  std::string path;
  for (int depth = bytes.Get<std::uint8_t>() % 5; depth > 0; --depth) {
    if (!path.empty()) path += '/';
    path += Name(bytes.Get<std::uint8_t>());
  }
  return path;
}

std::string Target(ByteReader& bytes) {
  const auto kind = bytes.Get<std::uint8_t>();
  // Long ones no longer fit behind their inode.
  if (kind >= 0xf0) return std::string(1 + bytes.Get<std::uint16_t>() % (kMaximumPath - 1), 't');
  std::string target = (kind & 1) != 0 ? "/" : "";
  if ((kind & 2) != 0) target += "../";
  target += Path(bytes);
  return target.empty() ? "." : target;
}

std::vector<ExtendedAttribute> Attributes(ByteReader& bytes) {
  static constexpr std::array<std::string_view, 4> kNamespaces = {"user.", "trusted.", "security.", "system."};
  static constexpr std::array<std::string_view, 3> kRests = {"", "a", "capability"};
  std::map<std::string, std::string> attributes;
  for (int count = bytes.Get<std::uint8_t>() % 4; count > 0; --count) {
    const auto choice = bytes.Get<std::uint8_t>();
    std::string name(kNamespaces[choice % 4]);
    if (name == "system.") {
      name += (choice & 4) != 0 ? "posix_acl_access" : "posix_acl_default";
    } else if (choice >= 0xf0) {
      name.resize(kMaximumName, 'x');
    } else {
      name += kRests[choice / 4 % 3];
    }
    const auto length = bytes.Get<std::uint8_t>();
    attributes[name] = std::string(length < 0xf0 ? length : bytes.Get<std::uint16_t>(), static_cast<char>(choice));
  }
  std::vector<ExtendedAttribute> list;
  list.reserve(attributes.size());
  for (auto& [name, value] : attributes) list.push_back({name, std::move(value)});
  return list;
}

// A layer on its way: its index, and its blob's length. What would be a file's data is never written.
struct Layer {
  LayerIndexWriter index;
  std::uint64_t length = 0;

  void Add(TarEntry file) {
    LayerEntry entry{.file = std::move(file)};
    if (entry.file.size > 0) {
      entry.data_offset = length;
      length += RoundUpToBlock(entry.file.size);
    }
    Require(index.Add(entry).ok(), "an entry is within the limits");
  }
};

TarEntry MakeEntry(ByteReader& bytes) {
  TarEntry file;
  file.type = static_cast<EntryType>(bytes.Get<std::uint8_t>() % 7 + 1);
  file.path = Path(bytes);
  if (file.path.empty()) file.type = EntryType::kDirectory;
  file.mode = bytes.Get<std::uint16_t>() % 010000;
  file.user = bytes.Get<std::uint32_t>();
  file.group = bytes.Get<std::uint32_t>();
  file.mtime = static_cast<std::int64_t>(bytes.Get<std::uint64_t>());
  file.mtime_nanoseconds = bytes.Get<std::uint32_t>() % 1'000'000'000;
  file.attributes = Attributes(bytes);
  switch (file.type) {
    case EntryType::kRegular:
      // Up to 256 GiB: twelve of them are less than an image may have, more may not be.
      file.size = bytes.Get<std::uint64_t>() >> (26 + bytes.Get<std::uint8_t>() % 38);
      break;
    case EntryType::kHardLink:
      file.link_target = Path(bytes);
      break;
    case EntryType::kSymlink:
      file.link_target = Target(bytes);
      break;
    case EntryType::kCharacterDevice:
    case EntryType::kBlockDevice:
      file.device_major = bytes.Get<std::uint32_t>() % 0x1000;
      file.device_minor = bytes.Get<std::uint32_t>() % 0x100000;
      break;
    case EntryType::kDirectory:
    case EntryType::kFifo:
      break;
  }
  return file;
}

// Many names in one directory: it has several blocks then.
void AddCrowd(ByteReader& bytes, Layer& layer) {
  const std::string directory = Path(bytes);
  const int count = bytes.Get<std::uint8_t>();
  const std::size_t length = bytes.Get<std::uint8_t>() % 250;
  for (int i = 0; i < count; ++i) {
    const std::string name = std::string(length, 'f') + std::to_string(i);
    layer.Add({.path = directory.empty() ? name : Concat(directory, "/", name)});
  }
}

std::vector<Layer> MakeLayers(ByteReader& bytes) {
  constexpr std::uint8_t kNextLayer = 0xff;
  constexpr std::uint8_t kCrowd = 0xfe;
  std::vector<Layer> layers(1);
  std::size_t crowds = 0;
  for (std::size_t entries = 0; bytes.remaining() > 0 && entries < kMaximumEntries; ++entries) {
    const auto kind = bytes.Get<std::uint8_t>();
    if (kind == kNextLayer) {
      if (layers.size() == kMaximumLayers) break;
      layers.emplace_back();
    } else if (kind == kCrowd && ++crowds <= 3) {
      AddCrowd(bytes, layers.back());
    } else {
      layers.back().Add(MakeEntry(bytes));
    }
  }
  return layers;
}

void Run(std::string_view input) {
  ByteReader bytes(input);
  ImageTree tree;
  std::vector<std::uint64_t> lengths;
  for (Layer& layer : MakeLayers(bytes)) {
    constexpr std::uint64_t kMaximumDisk = std::uint64_t{12} << 40;
    if (layer.length > kMaximumDisk / kMaximumLayers) return;
    const std::string index = layer.index.Finish(layer.length);
    const StatusOr<LayerIndexReader> reader = LayerIndexReader::Parse(index);
    Require(reader.ok(), "an index that was written can be read");
    const Status applied = tree.ApplyLayer(*reader, static_cast<std::uint32_t>(lengths.size()));
    lengths.push_back(layer.length);
    if (applied.ok()) continue;
    Require(absl::IsInvalidArgument(applied) || absl::IsResourceExhausted(applied),
            Concat("a layer is at fault, or too large: ", applied.message()));
    return RequireSoundError(applied);
  }
  RequireSameOnDisk(tree, lengths);
}

}  // namespace
}  // namespace husk::images::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::images::fuzz::Run(husk::images::fuzz::AsText(data, size));
  return 0;
}
