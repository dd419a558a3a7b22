#include "cri/huskctl/events_command.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace husk::huskctl {
namespace {

namespace api = ::runtime::v1;

api::ContainerEventResponse Event(const std::string& id, api::ContainerEventType type) {
  api::ContainerEventResponse event;
  event.set_container_id(id);
  event.set_container_event_type(type);
  event.set_created_at(1'000'000'007);
  event.mutable_pod_sandbox_status()->set_id("pod-id");
  auto* metadata = event.mutable_pod_sandbox_status()->mutable_metadata();
  metadata->set_name("web");
  metadata->set_namespace_("default");
  metadata->set_uid("uid");
  api::ContainerStatus* container = event.add_containers_statuses();
  container->set_id("c-id");
  container->mutable_metadata()->set_name("main");
  container->set_exit_code(137);
  container->set_reason("OOMKilled");
  return event;
}

TEST(EventsCommand, ALineTellsWhatHappenedToWhom) {
  EXPECT_EQ(EventLine(Event("pod-id", api::CONTAINER_STARTED_EVENT)),
            "1970-01-01T00:00:01.000000007Z started pod default/web pod-id");
  EXPECT_EQ(EventLine(Event("c-id", api::CONTAINER_CREATED_EVENT)),
            "1970-01-01T00:00:01.000000007Z created container default/web/main c-id");
  EXPECT_EQ(EventLine(Event("c-id", api::CONTAINER_STOPPED_EVENT)),
            "1970-01-01T00:00:01.000000007Z stopped container default/web/main c-id 137 OOMKilled");
  EXPECT_EQ(EventLine(Event("gone", api::CONTAINER_DELETED_EVENT)),
            "1970-01-01T00:00:01.000000007Z deleted container default/web gone");
}

TEST(EventsCommand, JsonHasTheSameFacts) {
  const auto json = nlohmann::json::parse(EventJson(Event("c-id", api::CONTAINER_STOPPED_EVENT)));
  EXPECT_EQ(json.at("type"), "stopped");
  EXPECT_EQ(json.at("kind"), "container");
  EXPECT_EQ(json.at("id"), "c-id");
  EXPECT_EQ(json.at("pod"), "pod-id");
  EXPECT_EQ(json.at("name"), "main");
  EXPECT_EQ(json.at("exitCode"), 137);
  EXPECT_EQ(json.at("reason"), "OOMKilled");
  EXPECT_FALSE(nlohmann::json::parse(EventJson(Event("gone", api::CONTAINER_DELETED_EVENT))).contains("name"));
}

}  // namespace
}  // namespace husk::huskctl
