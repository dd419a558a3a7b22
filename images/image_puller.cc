#include "images/image_puller.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <stop_token>
#include <thread>
#include <utility>

#include "agent/common/mutex.h"
#include "images/digest.h"
#include "images/erofs_writer.h"
#include "images/image_tree.h"
#include "images/layer_unpacker.h"
#include "images/text.h"

namespace husk::images {
namespace {

constexpr std::uint64_t kMaximumConfig = std::uint64_t{8} << 20;
constexpr int kMaximumIndexDepth = 3;
// Part of what names an image's metadata: a change of the writer makes new files instead of reusing old ones.
constexpr std::string_view kMetadataVersion = "husk erofs 1";

std::string MetadataDigest(const std::vector<std::string>& diff_ids) {
  return DigestOf(Concat(kMetadataVersion, "\n", Join(diff_ids, "\n")));
}

}  // namespace

ImagePuller::ImagePuller(std::shared_ptr<ImageStore> store, SharedLayers& shared, const Reference& reference,
                         const RegistryCredentials& credentials, std::vector<RegistryEndpoint> endpoints,
                         std::uint32_t parallel_layers, PullReporter& reporter)
    : store_(std::move(store)),
      shared_(shared),
      reference_(reference),
      parallel_layers_(std::max(parallel_layers, 1U)),
      reporter_(reporter),
      registry_(reference, credentials, std::move(endpoints), RegistryLimits(),
                [this](const std::string& doing) { reporter_.Doing(doing); }) {}

StatusOr<std::string> ImagePuller::Pull(const Context& context) {
  std::string top_digest;
  HUSK_ASSIGN_OR_RETURN(const Manifest manifest, ResolveManifest(context, top_digest));
  ImageRecord record{.id = manifest.config.digest};
  HUSK_ASSIGN_OR_RETURN(record.config, FetchConfig(context, manifest.config));
  HUSK_ASSIGN_OR_RETURN(const ImageConfig config, ParseImageConfig(record.config));
  HUSK_RETURN_IF_ERROR(CheckUser(config.run.user));
  if (config.diff_ids.size() != manifest.layers.size()) {
    return absl::InvalidArgumentError(
        Concat("malformed image: ", manifest.layers.size(), " layers but ", config.diff_ids.size(), " diff-ids"));
  }
  record.annotations = WriteAnnotations(manifest.annotations);
  record.metadata = MetadataDigest(config.diff_ids);
  const std::shared_ptr<ImageStore::Pin> pin = store_->PinFiles(config.diff_ids, {record.metadata});

  std::vector<Layer> layers;
  std::set<std::string> seen;
  for (std::size_t i = 0; i < config.diff_ids.size(); ++i) {
    record.layers.push_back({.diff_id = config.diff_ids[i]});
    if (seen.insert(config.diff_ids[i]).second) layers.push_back({manifest.layers[i], config.diff_ids[i]});
  }
  HUSK_RETURN_IF_ERROR(FetchLayers(context, layers));
  HUSK_RETURN_IF_ERROR(MakeMetadata(context, record));
  record.size_bytes += record.config.size();
  if (reference_.digest.empty()) record.tags.push_back(reference_.Key());
  record.digests.push_back(reference_.Name() + "@" + top_digest);
  HUSK_RETURN_IF_ERROR(context.Check());
  HUSK_RETURN_IF_ERROR(store_->Put(record));
  return record.id;
}

StatusOr<Manifest> ImagePuller::ResolveManifest(const Context& context, std::string& top_digest) {
  std::string which = reference_.digest.empty() ? reference_.tag : reference_.digest;
  Descriptor expected;
  for (int depth = 0; depth < kMaximumIndexDepth; ++depth) {
    HUSK_ASSIGN_OR_RETURN(const RegistryClient::Document document, registry_.FetchManifest(context, http_, which));
    if (depth == 0) {
      top_digest = document.digest;
    } else {
      if (document.body.size() != expected.size) {
        return absl::DataLossError(
            Concat("manifest ", which, " has ", document.body.size(), " bytes, its index says ", expected.size));
      }
      HUSK_RETURN_IF_ERROR_DOING(IsIndex(document.body, expected.media_type).status(),
                                 Concat("manifest ", which, ", as its index describes it"));
    }
    HUSK_ASSIGN_OR_RETURN(const bool is_index, IsIndex(document.body, document.media_type));
    if (!is_index) return ParseManifest(document.body);
    HUSK_ASSIGN_OR_RETURN(expected, ChooseFromIndex(document.body));
    which = expected.digest;
  }
  return absl::InvalidArgumentError("malformed image: indexes within indexes");
}

StatusOr<std::string> ImagePuller::FetchConfig(const Context& context, const Descriptor& config) {
  HUSK_ASSIGN_OR_RETURN(std::optional<ImageRecord> known, store_->Find(config.digest));
  if (known) return std::move(known->config);
  return registry_.FetchBlob(context, http_, config, kMaximumConfig);
}

Status ImagePuller::FetchLayers(const Context& context, const std::vector<Layer>& layers) {
  std::uint64_t total = 0;
  for (const Layer& layer : layers) total += layer.blob.size;
  reporter_.SetTotals(total, static_cast<std::uint32_t>(layers.size()));
  std::stop_source failed;
  const Context layer_context = context.WithStopToken(failed.get_token());
  std::atomic<std::size_t> next = 0;
  Mutex mutex;
  Status first_failure;
  const auto work = [&] {
    HttpClient http;
    for (std::size_t i = next++; i < layers.size(); i = next++) {
      const Status status = EnsureLayer(layer_context, http, layers[i]);
      if (status.ok()) continue;
      const MutexLock lock(mutex);
      // The others fail too, then, by being stopped: that is no news.
      if (first_failure.ok()) first_failure = Annotate(status, Concat("layer ", layers[i].blob.digest));
      failed.request_stop();
      return;
    }
  };
  {
    std::vector<std::jthread> threads;
    const std::size_t count = std::min<std::size_t>(parallel_layers_, layers.size());
    threads.reserve(count);
    for (std::size_t i = 0; i < count; ++i) threads.emplace_back(work);
  }
  HUSK_RETURN_IF_ERROR(context.Check());
  return first_failure;
}

Status ImagePuller::EnsureLayer(const Context& context, HttpClient& http, const Layer& layer) {
  bool fetched = false;
  const auto present = [&]() -> StatusOr<bool> {
    HUSK_ASSIGN_OR_RETURN(const std::optional<std::string> index, store_->ReadLayerIndex(layer.diff_id));
    return index.has_value();
  };
  const auto fetch = [&] {
    fetched = true;
    return FetchLayer(context, http, layer);
  };
  const auto wait = [&] { reporter_.Doing(Concat("layer ", layer.blob.digest, ", which another pull is fetching")); };
  HUSK_RETURN_IF_ERROR(shared_.Ensure(context, layer.diff_id, present, fetch, wait));
  if (!fetched) reporter_.LayerWasThere(layer.blob.size);
  reporter_.LayerDone();
  return absl::OkStatus();
}

Status ImagePuller::FetchLayer(const Context& context, HttpClient& http, const Layer& layer) {
  while (true) {
    const Status status = FetchLayerOnce(context, http, layer);
    // Content that is wrong may be a mirror's fault, before it is the image's.
    const bool wrong = absl::IsDataLoss(status) || absl::IsInvalidArgument(status);
    if (!wrong || !registry_.DistrustMirrors()) return status;
  }
}

Status ImagePuller::FetchLayerOnce(const Context& context, HttpClient& http, const Layer& layer) {
  HUSK_ASSIGN_OR_RETURN(const std::unique_ptr<ImageStore::IngestFile> blob, store_->NewIngestFile());
  LayerUnpacker unpacker(context, {layer.blob.digest, layer.blob.size, layer.diff_id}, blob->fd());
  HUSK_RETURN_IF_ERROR(registry_.StreamBlob(context, http, layer.blob, [&](std::string_view data) {
    reporter_.AddBytes(data.size());
    return unpacker.Write(data);
  }));
  HUSK_ASSIGN_OR_RETURN(const std::string index, unpacker.Finish());
  return store_->CommitLayer(layer.diff_id, *blob, index);
}

Status ImagePuller::MakeMetadata(const Context& context, ImageRecord& record) {
  reporter_.Doing("the layers' merge");
  std::map<std::string, std::uint32_t> parts;
  std::vector<std::uint64_t> lengths;
  ImageTree tree;
  const std::optional<std::uint64_t> existing = store_->MetadataLength(record.metadata);
  for (LayerRecord& layer : record.layers) {
    HUSK_RETURN_IF_ERROR(context.Check());
    HUSK_ASSIGN_OR_RETURN(const std::optional<std::string> bytes, store_->ReadLayerIndex(layer.diff_id));
    if (!bytes) return absl::InternalError(Concat("layer ", layer.diff_id, " has vanished"));
    HUSK_ASSIGN_OR_RETURN(const LayerIndexReader index, LayerIndexReader::Parse(*bytes));
    layer.length = index.blob_length();
    const auto [part, is_new] = parts.emplace(layer.diff_id, static_cast<std::uint32_t>(lengths.size()));
    if (is_new) {
      lengths.push_back(layer.length);
      HUSK_ASSIGN_OR_RETURN(const std::uint64_t usage, store_->LayerDiskUsage(layer.diff_id));
      record.size_bytes += usage;
    }
    if (!existing) {
      HUSK_RETURN_IF_ERROR_DOING(tree.ApplyLayer(index, part->second), Concat("layer ", layer.diff_id));
    }
  }
  record.metadata_length = existing.value_or(0);
  if (!existing) {
    HUSK_ASSIGN_OR_RETURN(const std::string metadata, WriteErofsMetadata(tree, lengths, record.metadata));
    HUSK_RETURN_IF_ERROR(store_->CommitMetadata(record.metadata, metadata));
    record.metadata_length = metadata.size();
  }
  record.size_bytes += record.metadata_length;
  return absl::OkStatus();
}

}  // namespace husk::images
