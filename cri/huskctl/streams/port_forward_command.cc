#include <cstdio>

#include "absl/strings/str_cat.h"
#include "cri/huskctl/streams/port_forwarder.h"
#include "cri/huskctl/streams/stream_commands.h"
#include "cri/huskctl/support.h"

namespace husk::huskctl {
namespace {

StatusOr<std::string> UrlFor(Client& client, const std::string& pod, std::uint16_t port) {
  api::PortForwardRequest request;
  request.set_pod_sandbox_id(pod);
  request.add_port(port);
  HUSK_ASSIGN_OR_RETURN(const api::PortForwardResponse response, client.Call(request));
  return response.url();
}

void Say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);  // into a pipe too, as it happens
}

}  // namespace

StatusOr<int> PortForward(Client& client, const PortForwardCommandOptions& options) {
  PortForwarderOptions forwarding;
  forwarding.addresses = options.addresses;
  forwarding.certificate_authority = options.certificate_authority;
  for (const std::string& text : options.ports) {
    HUSK_ASSIGN_OR_RETURN(forwarding.ports.emplace_back(), ParsePortMapping(text));
  }
  HUSK_ASSIGN_OR_RETURN(const api::PodSandbox pod, FindPod(client, options.pod));
  if (pod.state() != api::SANDBOX_READY) {
    return absl::FailedPreconditionError(absl::StrCat("pod ", options.pod, " (", ShortId(pod.id()), ") is not ready"));
  }
  HUSK_ASSIGN_OR_RETURN(
      const std::unique_ptr<PortForwarder> forwarder,
      PortForwarder::Listen(
          forwarding,
          {.url_for = [&](std::uint16_t port) { return UrlFor(client, pod.id(), port); },
           .say = Say,
           .complain = [](const std::string& line) { std::fprintf(stderr, "huskctl: %s\n", line.c_str()); }}));
  for (const std::string& place : forwarder->places()) Say(absl::StrCat("Forwarding from ", place));
  // SIGINT and SIGTERM end the process as they do others: the sockets go with it, and there is nothing to put back.
  forwarder->Run();
  return 0;
}

}  // namespace husk::huskctl
