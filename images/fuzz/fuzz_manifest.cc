// The JSON documents of an image. The first byte picks the parser.
#include "images/digest.h"
#include "images/fuzz/require.h"
#include "images/manifest.h"

namespace husk::images::fuzz {
namespace {

void RequireSound(const Descriptor& descriptor) {
  Require(IsDigest(descriptor.digest), "a descriptor has a digest");
  Require(descriptor.size <= std::uint64_t{1} << 63, "a descriptor's size is a signed number");
}

void RunIndex(std::string_view json) {
  const StatusOr<Descriptor> chosen = ChooseFromIndex(json);
  if (!chosen.ok()) return RequireSoundError(chosen.status());
  RequireSound(*chosen);
}

void RunManifest(std::string_view json) {
  const StatusOr<Manifest> manifest = ParseManifest(json);
  if (!manifest.ok()) return RequireSoundError(manifest.status());
  RequireSound(manifest->config);
  for (const Descriptor& layer : manifest->layers) RequireSound(layer);
  Require(manifest->layers.size() <= 512, "an image has 512 layers at most");
  const auto annotations = ReadAnnotations(WriteAnnotations(manifest->annotations));
  Require(annotations.ok() && *annotations == manifest->annotations, "annotations that are kept stay the same");
}

void RunConfig(std::string_view json) {
  const StatusOr<ImageConfig> config = ParseImageConfig(json);
  if (!config.ok()) return RequireSoundError(config.status());
  for (const std::string& diff_id : config->diff_ids) Require(IsDigest(diff_id), "a diff-id is a digest");
}

void RunKind(std::string_view text) {
  // The header's media type is the first line.
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos) return;
  const std::string_view json = text.substr(end + 1);
  const StatusOr<bool> is_index = IsIndex(json, text.substr(0, end));
  if (!is_index.ok()) return RequireSoundError(is_index.status());
  if (*is_index) {
    RunIndex(json);
  } else {
    RunManifest(json);
  }
}

void Run(std::uint8_t choice, std::string_view text) {
  switch (choice % 5) {
    case 0:
      return RunKind(text);
    case 1:
      return RunIndex(text);
    case 2:
      return RunManifest(text);
    case 3:
      return RunConfig(text);
    default: {
      const auto annotations = ReadAnnotations(std::string(text));
      if (!annotations.ok()) return RequireSoundError(annotations.status());
      const auto again = ReadAnnotations(WriteAnnotations(*annotations));
      Require(again.ok() && *again == *annotations, "annotations that are kept stay the same");
    }
  }
}

}  // namespace
}  // namespace husk::images::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0) husk::images::fuzz::Run(*data, husk::images::fuzz::AsText(data + 1, size - 1));
  return 0;
}
