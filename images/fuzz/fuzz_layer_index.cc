// The index of a layer blob. The input lacks the digest at its end, which no fuzzer would find.
#include "images/digest.h"
#include "images/fuzz/require.h"
#include "images/layer_index.h"
#include "images/limits.h"

namespace husk::images::fuzz {
namespace {

void Run(std::string_view bytes) {
  Require(!LayerIndexReader::Parse(bytes).ok(), "an index without a digest is damaged");
  const std::string index = std::string(bytes) + DigestOf(bytes);
  StatusOr<LayerIndexReader> reader = LayerIndexReader::Parse(index);
  if (!reader.ok()) return RequireSoundError(reader.status());
  LayerIndexWriter writer;
  LayerEntry entry;
  while (true) {
    const StatusOr<bool> more = reader->Next(entry);
    if (!more.ok()) return RequireSoundError(more.status());
    if (!*more) break;
    Require(entry.file.path.size() <= kMaximumPath && !entry.file.path.starts_with('/'), "a path is relative");
    Require(writer.Add(entry).ok(), "an entry that was read can be written");
  }
  Require(writer.Finish(reader->blob_length()) == index, "an index that is written again is the same");
}

}  // namespace
}  // namespace husk::images::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  husk::images::fuzz::Run(husk::images::fuzz::AsText(data, size));
  return 0;
}
