// Containers: their huge pages, and changes of a container's cgroup.
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/guest/cgroup.h"
#include "agent/guest/cgroup_limits.h"
#include "agent/guest/containers.h"
#include "agent/guest/files.h"
#include "agent/guest/resources.h"
#include "agent/guest/retry.h"

namespace husk::agent {
namespace {

constexpr auto kHugePagesPatience = std::chrono::seconds(5);

// The kernel would kill what does not fit.
Status CheckMemoryLimit(std::string_view resources, const std::string& cgroup) {
  const auto limit = MemoryLimit(resources);
  if (!limit) return absl::OkStatus();
  const std::uint64_t used = CgroupMemoryInUse(cgroup);
  if (used <= *limit) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("memory_limit_in_bytes: ", *limit, " is less than the ", used, " bytes that the container uses"));
}

}  // namespace

GuestTopology Containers::Topology() const {
  GuestTopology topology = ReadTopology();
  topology.huge_page_sizes = huge_pages_.Sizes();
  return topology;
}

void Containers::ReserveHugePages(const std::string& id, const std::string& config, std::function<void(Status)> done) {
  const auto bytes = HugePageLimits(config);
  if (!bytes.ok()) return done(bytes.status());
  Retry(
      loop_, kHugePagesPatience, [this, id, bytes = *bytes] { return huge_pages_.Reserve(id, bytes); },
      std::move(done));
}

void Containers::UpdateResources(const v1::UpdateResourcesRequest& request,
                                 const Done<v1::UpdateResourcesResponse>& done) {
  const std::string& id = request.container_id();
  Container* const container = FindContainer(id);
  if (container == nullptr || container->creating) {
    return done(UnknownContainer(id));
  }
  if (container->process.starting) {
    container->process.start_waiters.Add([this, request, done](const Status&) { UpdateResources(request, done); });
    return;
  }
  if (container->process.exited() || container->removing) return done(v1::UpdateResourcesResponse());
  const auto resources = FitResources(request.resources_json(), Topology());
  if (!resources.ok()) return done(resources.status());
  const auto merged = MergeResources(container->config, *resources);
  if (!merged.ok()) return done(merged.status());
  // huskd asks for what was asked before when it does not know how that ended.
  if (*merged == container->config && !container->half_changed) return done(v1::UpdateResourcesResponse());
  const Status fits = CheckMemoryLimit(*resources, Cgroup(id));
  if (!fits.ok() || request.check_only()) return fits.ok() ? done(v1::UpdateResourcesResponse()) : done(fits);
  ReserveHugePages(id, *merged, [this, id, done, resources = *resources, config = *merged](const Status& reserved) {
    if (!reserved.ok()) return done(reserved);
    ApplyResources(id, resources, config, done);
  });
}

void Containers::ApplyResources(const std::string& id, const std::string& resources, const std::string& config,
                                const Done<v1::UpdateResourcesResponse>& done) {
  Container* const container = FindContainer(id);
  // It has ended meanwhile.
  if (container == nullptr || container->process.exited() || container->removing) {
    huge_pages_.Release(id);
    return done(v1::UpdateResourcesResponse());
  }
  if (container->process.starting) {
    container->process.start_waiters.Add([=, this](const Status&) { ApplyResources(id, resources, config, done); });
    return;
  }
  const Status applied = container->process.running() ? ChangeLimits(Cgroup(id), resources)
                                                      : CreateFile(Bundle(id) + "/config.json", config, 0600);
  container->half_changed = absl::IsInternal(applied);
  if (!applied.ok()) return ReserveHugePages(id, container->config, [done, applied](const Status&) { done(applied); });
  container->config = config;
  done(v1::UpdateResourcesResponse());
}

}  // namespace husk::agent
