// Containers: changes of a container's cgroup.
#include <string>
#include <utility>

#include "agent/guest/containers.h"
#include "agent/guest/files.h"
#include "agent/guest/resources.h"

namespace husk::agent {

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
  const auto resources = FitResources(request.resources_json(), ReadTopology());
  if (!resources.ok()) return done(resources.status());
  auto merged = MergeResources(container->config, *resources);
  if (!merged.ok()) return done(merged.status());
  if (!container->process.running()) {
    const Status written = CreateFile(Bundle(id) + "/config.json", *merged, 0600);
    if (!written.ok()) return done(written);
    container->config = *std::move(merged);
    return done(v1::UpdateResourcesResponse());
  }
  crun_.Update(id, *resources, [this, id, done, config = *std::move(merged)](const Status& status) {
    Container* const updated = FindContainer(id);
    // It has ended meanwhile, which is why crun may have failed.
    if (updated == nullptr || updated->process.exited()) return done(v1::UpdateResourcesResponse());
    if (!status.ok()) return done(status);
    updated->config = config;
    done(v1::UpdateResourcesResponse());
  });
}

}  // namespace husk::agent
