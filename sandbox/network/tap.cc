#include "sandbox/network/tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/network/bpf_program.h"
#include "sandbox/network/link.h"
#include "sandbox/network/namespace.h"
#include "sandbox/network/redirect.h"
#include "sandbox/network/source_filter.h"

namespace husk::sandbox {
namespace {

// The kernel would look for routers and other addresses through the tap, right into the guest. /proc/sys/net shows the
// namespace of the thread. Best effort: there may be no IPv6, or a read-only /proc/sys, and the guest can bear it.
void SilenceIpv6(const std::string& link) {
  const UniqueFd setting(
      open(absl::StrCat("/proc/sys/net/ipv6/conf/", link, "/disable_ipv6").c_str(), O_WRONLY | O_CLOEXEC));
  if (setting.valid()) (void)!write(setting.get(), "1", 1);
}

StatusOr<UniqueFd> MakeTap(const std::string& name) {
  UniqueFd tap(open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!tap.valid()) return ErrnoStatus(errno, "open /dev/net/tun");
  ifreq request{};
  std::strncpy(request.ifr_name, name.c_str(), sizeof(request.ifr_name) - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(tap.get(), TUNSETIFF, &request) != 0) return ErrnoStatus(errno, absl::StrCat("make tap ", name));
  return tap;
}

StatusOr<UniqueFd> LoadSourceFilter(const NetworkInterface& interface) {
  HUSK_ASSIGN_OR_RETURN_DOING(const auto program, SourceFilter(interface), "filter what the guest sends");
  HUSK_ASSIGN_OR_RETURN_DOING(UniqueFd loaded, LoadClassifier(program),
                              "filter what the guest sends (network.filter_sources: false does without)");
  return loaded;
}

// On a thread inside the namespace.
StatusOr<UniqueFd> JoinTap(const std::string& interface_name, int filter) {
  HUSK_ASSIGN_OR_RETURN(const Link interface, ReadLink(interface_name));
  const std::string name = absl::StrCat("tap", interface.index);
  HUSK_ASSIGN_OR_RETURN(UniqueFd tap, MakeTap(name));
  HUSK_ASSIGN_OR_RETURN(const Link link, ReadLink(name));
  SilenceIpv6(name);
  // Up first: a redirect to a link that is down loses frames.
  HUSK_RETURN_IF_ERROR_DOING(BringUp(link, interface.mtu), name);
  HUSK_RETURN_IF_ERROR_DOING(Redirect(link, interface, filter), absl::StrCat(name, " to ", interface_name));
  HUSK_RETURN_IF_ERROR_DOING(Redirect(interface, link, /*filter=*/-1), absl::StrCat(interface_name, " to ", name));
  return tap;
}

}  // namespace

Status ProbeTrafficControl(bool filter_sources) {
  UniqueFd filter;
  if (filter_sources) {
    const NetworkInterface some{.name = "lo", .mac_address = "02:00:00:00:00:01", .addresses = {"192.0.2.1/32"}};
    HUSK_ASSIGN_OR_RETURN(filter, LoadSourceFilter(some));
  }
  return RunInNewNamespace([&]() -> Status {
    HUSK_ASSIGN_OR_RETURN(const Link loopback, ReadLink("lo"));
    HUSK_RETURN_IF_ERROR_DOING(Redirect(loopback, loopback, filter_sources ? filter.get() : -1), "traffic control");
    return absl::OkStatus();
  });
}

StatusOr<UniqueFd> OpenTap(const std::string& namespace_path, const NetworkInterface& interface, bool filter_sources) {
  UniqueFd filter;
  if (filter_sources) {
    HUSK_ASSIGN_OR_RETURN(filter, LoadSourceFilter(interface));
  }
  UniqueFd tap;
  HUSK_RETURN_IF_ERROR(RunInNamespace(namespace_path, [&]() -> Status {
    HUSK_ASSIGN_OR_RETURN(tap, JoinTap(interface.name, filter_sources ? filter.get() : -1));
    return absl::OkStatus();
  }));
  return tap;
}

}  // namespace husk::sandbox
