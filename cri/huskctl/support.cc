#include "cri/huskctl/support.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <system_error>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "agent/common/context.h"

namespace husk::huskctl {

namespace {

// Shows one pull on one line of a terminal, or a line every few seconds elsewhere.
class PullDisplay {
 public:
  PullDisplay(Client* client, std::string image) : client_(client), image_(std::move(image)) {}

  void Run(const std::stop_token& stop) {
    const Context context = Context::Background().WithStopToken(stop);
    const auto pause = terminal_ ? std::chrono::milliseconds(300) : std::chrono::milliseconds(2000);
    while (SleepFor(context, pause).ok()) Show();
    if (shown_ && terminal_) std::fputs("\r\x1b[K", stderr);
  }

 private:
  void Show() {
    const StatusOr<std::string> text = InformationOf(*client_, "pulls");
    if (!text.ok()) return;
    const nlohmann::json pulls = nlohmann::json::parse(*text, nullptr, false);
    for (const nlohmann::json& pull : pulls) {
      if (pull.value("image", "") != image_) continue;
      const auto total = pull.value("bytesTotal", std::uint64_t{0});
      const double seconds = static_cast<double>(pull.value("milliseconds", 0)) / 1000;
      const auto done = pull.value("bytesDone", std::uint64_t{0});
      const auto rate = static_cast<std::uint64_t>(static_cast<double>(done) / std::max(seconds, 0.001));
      std::string line =
          absl::StrFormat("pulling %s  %s of %s, %s/s  layers %d/%d  %.1f s", image_, ReadableBytes(done),
                          total == 0 ? "?" : ReadableBytes(total), ReadableBytes(rate), pull.value("layersDone", 0),
                          pull.value("layersTotal", 0), seconds);
      const std::string waiting = pull.value("waitingFor", "");
      if (!waiting.empty()) absl::StrAppend(&line, "  ", waiting);
      std::fprintf(stderr, terminal_ ? "\r\x1b[K%.120s" : "%s\n", line.c_str());
      shown_ = true;
    }
  }

  Client* const client_;
  const std::string image_;
  const bool terminal_ = isatty(STDERR_FILENO) == 1;
  bool shown_ = false;
};

std::string PodName(const api::PodSandbox& pod) {
  return absl::StrCat(pod.metadata().namespace_(), "/", pod.metadata().name());
}

std::string FullName(const api::Container& container) {
  const auto pod = container.labels().find("io.kubernetes.pod.name");
  return absl::StrCat(pod == container.labels().end() ? "" : pod->second, "/", container.metadata().name());
}

bool IsLaterAttempt(const api::Container& later, const api::Container& earlier) {
  return later.pod_sandbox_id() == earlier.pod_sandbox_id() && later.metadata().name() == earlier.metadata().name() &&
         later.metadata().attempt() > earlier.metadata().attempt();
}

}  // namespace

StatusOr<api::PodSandbox> FindPod(Client& client, const std::string& name) {
  HUSK_ASSIGN_OR_RETURN(const api::ListPodSandboxResponse pods, client.Call(api::ListPodSandboxRequest()));
  std::vector<api::PodSandbox> found;
  for (const api::PodSandbox& pod : pods.items()) {
    if (pod.id() == name) return pod;
    if (pod.metadata().name() == name || PodName(pod) == name || absl::StartsWith(pod.id(), name)) found.push_back(pod);
  }
  if (found.size() == 1) return found.front();
  const auto list = [](const auto& some) {
    return absl::StrJoin(some, ", ", [](std::string* out, const api::PodSandbox& pod) {
      absl::StrAppend(out, PodName(pod), " (", ShortId(pod.id()), ")");
    });
  };
  if (!found.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("\"", name, "\" fits several pods: ", list(found)));
  }
  return absl::NotFoundError(
      absl::StrCat("there is no pod \"", name, "\"",
                   pods.items().empty() ? "; there are none" : "; there are: ", list(pods.items())));
}

StatusOr<api::Container> FindContainer(Client& client, const std::string& name) {
  HUSK_ASSIGN_OR_RETURN(const api::ListContainersResponse containers, client.Call(api::ListContainersRequest()));
  return ChooseContainer(containers, name);
}

StatusOr<api::Container> ChooseContainer(const api::ListContainersResponse& containers, const std::string& name) {
  std::vector<api::Container> found;
  for (const api::Container& container : containers.containers()) {
    if (container.id() == name) return container;
    if (container.metadata().name() == name || FullName(container) == name || absl::StartsWith(container.id(), name)) {
      found.push_back(container);
    }
  }
  const std::vector<api::Container> attempts = found;  // erasing moves what it looks at
  std::erase_if(found, [&attempts](const api::Container& container) {
    return std::any_of(attempts.begin(), attempts.end(),
                       [&container](const api::Container& other) { return IsLaterAttempt(other, container); });
  });
  if (found.size() == 1) return found.front();
  const auto list = [](const auto& some) {
    return absl::StrJoin(some, ", ", [](std::string* out, const api::Container& container) {
      absl::StrAppend(out, FullName(container), " (", ShortId(container.id()), ")");
    });
  };
  if (!found.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("\"", name, "\" fits several containers: ", list(found)));
  }
  return absl::NotFoundError(absl::StrCat(
      "there is no container \"", name, "\"",
      containers.containers().empty() ? "; there are none" : "; there are: ", list(containers.containers())));
}

StatusOr<std::string> PullWithProgress(Client& client, const std::string& image, const api::AuthConfig& auth) {
  api::PullImageRequest request;
  request.mutable_image()->set_image(image);
  *request.mutable_auth() = auth;
  PullDisplay display(&client, image);
  std::jthread shower([&display](const std::stop_token& stop) { display.Run(stop); });
  const StatusOr<api::PullImageResponse> pulled = client.Call(request);
  shower.request_stop();
  shower.join();
  if (!pulled.ok()) return Annotate(pulled.status(), "pull " + image);
  return pulled->image_ref();
}

StatusOr<std::string> InformationOf(Client& client, const std::string& key) {
  api::StatusRequest request;
  request.set_verbose(true);
  HUSK_ASSIGN_OR_RETURN(const api::StatusResponse status, client.Call(request));
  const auto found = status.info().find(key);
  if (found == status.info().end()) return absl::NotFoundError(absl::StrCat("huskd says nothing of ", key));
  return found->second;
}

std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&out, row[i]);
      if (i + 1 < row.size()) out.append(widths[i] - row[i].size() + 2, ' ');
    }
    out.push_back('\n');
  }
  return out;
}

std::string Age(std::int64_t nanoseconds) {
  const auto then = std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(std::chrono::nanoseconds(nanoseconds)));
  const auto seconds = std::max<std::int64_t>(
      0, std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now() - then).count());
  constexpr std::int64_t kMinute = 60;
  constexpr std::int64_t kHour = 60 * kMinute;
  constexpr std::int64_t kDay = 24 * kHour;
  if (seconds < 2 * kMinute) return absl::StrCat(seconds, " s");
  if (seconds < 2 * kHour) return absl::StrCat(seconds / kMinute, " min");
  if (seconds < 2 * kDay) return absl::StrCat(seconds / kHour, " h");
  return absl::StrCat(seconds / kDay, " d");
}

std::string ShortId(std::string_view id) {
  constexpr std::string_view kDigest = "sha256:";
  constexpr std::size_t kShown = 12;
  if (id.starts_with(kDigest)) id.remove_prefix(kDigest.size());
  return std::string(id.substr(0, kShown));
}

std::string ReadableBytes(std::uint64_t bytes) {
  constexpr double kKibi = 1024;
  const auto value = static_cast<double>(bytes);
  if (value < kKibi) return absl::StrCat(bytes, " B");
  if (value < kKibi * kKibi) return absl::StrFormat("%.1f KiB", value / kKibi);
  if (value < kKibi * kKibi * kKibi) return absl::StrFormat("%.1f MiB", value / kKibi / kKibi);
  return absl::StrFormat("%.1f GiB", value / kKibi / kKibi / kKibi);
}

std::string StateName(api::ContainerState state) {
  switch (state) {
    case api::CONTAINER_CREATED:
      return "created";
    case api::CONTAINER_RUNNING:
      return "running";
    case api::CONTAINER_EXITED:
      return "exited";
    default:
      return "unknown";
  }
}

std::string StateName(api::PodSandboxState state) {
  return state == api::SANDBOX_READY ? "ready" : "not ready";
}

Status RemovePod(Client& client, const std::string& id) {
  api::PodSandboxStatusRequest status_request;
  status_request.set_pod_sandbox_id(id);
  const StatusOr<api::PodSandboxStatusResponse> pod = client.Call(status_request);
  api::StopPodSandboxRequest stop;
  stop.set_pod_sandbox_id(id);
  HUSK_RETURN_IF_ERROR_DOING(client.Call(stop).status(), "stop pod " + ShortId(id));
  api::RemovePodSandboxRequest remove;
  remove.set_pod_sandbox_id(id);
  HUSK_RETURN_IF_ERROR_DOING(client.Call(remove).status(), "remove pod " + ShortId(id));
  if (!pod.ok()) return absl::OkStatus();
  const auto logs = pod->status().annotations().find(kLogDirectoryAnnotation);
  // Only what ends in this pod's own uid can be the directory that huskctl made for it.
  if (logs != pod->status().annotations().end() && absl::EndsWith(logs->second, "_" + pod->status().metadata().uid())) {
    std::error_code error;
    std::filesystem::remove_all(logs->second, error);
    if (error) return ErrnoStatus(error.value(), "remove the logs in " + logs->second);
  }
  return absl::OkStatus();
}

}  // namespace husk::huskctl
