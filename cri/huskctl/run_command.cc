#include <sys/random.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "agent/common/context.h"
#include "cri/huskctl/commands.h"
#include "cri/huskctl/log_reader.h"
#include "cri/huskctl/manifest.h"
#include "cri/huskctl/support.h"

namespace husk::huskctl {

namespace {

using Clock = std::chrono::steady_clock;

struct StartedContainer {
  std::string id;
  std::string name;
  std::string log_path;
};

void Say(const std::string& what, Clock::time_point since) {
  const double seconds = std::chrono::duration<double>(Clock::now() - since).count();
  std::fprintf(stderr, "%7.2f s  %s\n", seconds, what.c_str());
}

StatusOr<std::string> ReadManifest(const std::string& path) {
  if (path == "-") return std::string{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is a directory; a manifest is a file"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return ErrnoStatus(errno, "read " + path);
  return std::string{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

StatusOr<std::string> RandomUid() {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return ErrnoStatus(errno, "getrandom");
  std::string uid;
  for (const unsigned char byte : bytes) absl::StrAppend(&uid, absl::Hex(byte, absl::kZeroPad2));
  return uid;
}

StatusOr<std::string> LogDirectory(Client& client) {
  HUSK_ASSIGN_OR_RETURN(const std::string text, InformationOf(client, "husk"));
  const nlohmann::json information = nlohmann::json::parse(text, nullptr, false);
  if (!information.is_object() || !information.contains("root")) {
    return absl::InternalError("huskd does not say where its root directory is");
  }
  return information.value("root", "") + "/logs";
}

Status PullMissing(Client& client, const Manifest& manifest) {
  for (const ManifestContainer& container : manifest.containers) {
    const auto began = Clock::now();
    const std::string& image = container.config.image().image();
    api::ImageStatusRequest request;
    request.mutable_image()->set_image(image);
    HUSK_ASSIGN_OR_RETURN(const api::ImageStatusResponse present, client.Call(request));
    if (present.has_image() && !container.always_pull) {
      Say(absl::StrCat("image ", image, " is here already"), began);
      continue;
    }
    if (container.never_pull) {
      return absl::NotFoundError(absl::StrCat("image ", image, " is not here, and imagePullPolicy is Never"));
    }
    HUSK_RETURN_IF_ERROR(PullWithProgress(client, image, {}).status());
    Say(absl::StrCat("pulled ", image), began);
  }
  return absl::OkStatus();
}

StatusOr<std::string> StartPod(Client& client, const Manifest& manifest) {
  const auto began = Clock::now();
  std::error_code error;
  std::filesystem::create_directories(manifest.pod.log_directory(), error);
  if (error) return ErrnoStatus(error.value(), "make the log directory " + manifest.pod.log_directory());
  api::RunPodSandboxRequest request;
  *request.mutable_config() = manifest.pod;
  const StatusOr<api::RunPodSandboxResponse> pod = client.Call(request);
  if (!pod.ok()) {
    std::filesystem::remove_all(manifest.pod.log_directory(), error);
    return Annotate(pod.status(), "start the pod's VM");
  }
  Say(absl::StrCat("pod ", manifest.pod.metadata().name(), " (", ShortId(pod->pod_sandbox_id()), ") is ready"), began);
  return pod->pod_sandbox_id();
}

StatusOr<StartedContainer> StartContainer(Client& client, const std::string& pod, const Manifest& manifest,
                                          const api::ContainerConfig& config) {
  const auto began = Clock::now();
  const std::string& name = config.metadata().name();
  std::error_code error;
  std::filesystem::create_directories(manifest.pod.log_directory() + "/" + name, error);
  if (error) return ErrnoStatus(error.value(), "make the log directory of container " + name);
  api::CreateContainerRequest create;
  create.set_pod_sandbox_id(pod);
  *create.mutable_config() = config;
  *create.mutable_sandbox_config() = manifest.pod;
  for (const char* label : {"io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid"}) {
    (*create.mutable_config()->mutable_labels())[label] = manifest.pod.labels().at(label);
  }
  HUSK_ASSIGN_OR_RETURN_DOING(const api::CreateContainerResponse created, client.Call(create),
                              "create container " + name);
  api::StartContainerRequest start;
  start.set_container_id(created.container_id());
  HUSK_RETURN_IF_ERROR_DOING(client.Call(start).status(), "start container " + name);
  Say(absl::StrCat("container ", name, " (", ShortId(created.container_id()), ") runs"), began);
  return StartedContainer{
      .id = created.container_id(), .name = name, .log_path = manifest.pod.log_directory() + "/" + config.log_path()};
}

// Prints all logs until every container has exited; the exit code of the only container, else 0 if all were 0, else 1.
StatusOr<int> Follow(Client& client, const std::vector<StartedContainer>& containers) {
  std::vector<std::unique_ptr<LogReader>> logs;
  for (const StartedContainer& container : containers) {
    logs.push_back(
        std::make_unique<LogReader>(container.log_path, containers.size() == 1 ? "" : container.name + ": "));
  }
  for (;;) {
    bool all_exited = true;
    int exit_code = 0;
    for (const StartedContainer& container : containers) {
      api::ContainerStatusRequest request;
      request.set_container_id(container.id);
      HUSK_ASSIGN_OR_RETURN(const api::ContainerStatusResponse status, client.Call(request));
      all_exited = all_exited && status.status().state() == api::CONTAINER_EXITED;
      if (status.status().exit_code() != 0) exit_code = containers.size() == 1 ? status.status().exit_code() : 1;
    }
    // Read after the state: what was written before the exit is in the file when the exit shows.
    for (const auto& log : logs) HUSK_RETURN_IF_ERROR(log->Pump());
    if (all_exited) return exit_code;
    HUSK_RETURN_IF_ERROR(SleepFor(Context::Background(), std::chrono::milliseconds(100)));
  }
}

StatusOr<int> StartAndFollow(Client& client, const RunOptions& options, const Manifest& manifest,
                             const std::string& pod) {
  const auto began = Clock::now();
  std::vector<StartedContainer> containers;
  for (const ManifestContainer& container : manifest.containers) {
    HUSK_ASSIGN_OR_RETURN(containers.emplace_back(), StartContainer(client, pod, manifest, container.config));
  }
  if (!options.follow && !options.remove) return 0;
  HUSK_ASSIGN_OR_RETURN(const int exit_code, Follow(client, containers));
  Say(absl::StrCat("all containers have exited; exit code ", exit_code), began);
  return exit_code;
}

}  // namespace

StatusOr<int> Run(Client& client, const RunOptions& options) {
  const auto began = Clock::now();
  HUSK_ASSIGN_OR_RETURN(const std::string text, ReadManifest(options.manifest));
  HUSK_ASSIGN_OR_RETURN(const std::string uid, RandomUid());
  HUSK_ASSIGN_OR_RETURN(const std::string log_directory, LogDirectory(client));
  HUSK_ASSIGN_OR_RETURN(Manifest manifest,
                        ParseManifest(text, options.manifest == "-" ? "stdin" : options.manifest, uid, log_directory));
  for (const std::string& warning : manifest.warnings) std::fprintf(stderr, "warning: %s\n", warning.c_str());
  (*manifest.pod.mutable_annotations())[kLogDirectoryAnnotation] = manifest.pod.log_directory();

  HUSK_RETURN_IF_ERROR(PullMissing(client, manifest));
  HUSK_ASSIGN_OR_RETURN(const std::string pod, StartPod(client, manifest));
  const StatusOr<int> exit_code = StartAndFollow(client, options, manifest, pod);
  // A pod whose containers did not start is of no use to anybody.
  if (options.remove || !exit_code.ok()) {
    const auto removing = Clock::now();
    const Status removed = RemovePod(client, pod);
    if (!removed.ok() && exit_code.ok()) return removed;
    Say("removed the pod", removing);
  }
  if (exit_code.ok()) Say("in all", began);
  return exit_code;
}

}  // namespace husk::huskctl
