#include "sandbox/network/netlink.h"

#include <array>

#include "absl/strings/str_cat.h"

namespace husk::sandbox {

Status NetlinkStatus(int error, const std::string& doing) {
  if (error >= 0) return absl::OkStatus();
  const std::string message = absl::StrCat(doing, ": ", nl_geterror(error));
  if (error == -NLE_OBJ_NOTFOUND || error == -NLE_NODEV) return absl::NotFoundError(message);
  if (error == -NLE_EXIST) return absl::AlreadyExistsError(message);
  return absl::InternalError(message);
}

StatusOr<NetlinkOwned<nl_sock>> ConnectNetlink() {
  NetlinkOwned<nl_sock> socket(nl_socket_alloc());
  if (socket == nullptr) return absl::ResourceExhaustedError("allocate a netlink socket");
  HUSK_RETURN_IF_ERROR(NetlinkStatus(nl_connect(socket.get(), NETLINK_ROUTE), "connect to rtnetlink"));
  return socket;
}

std::string NetlinkAddressText(nl_addr* address) {
  if (address == nullptr || nl_addr_get_len(address) == 0) return "";
  std::array<char, 128> text{};
  return nl_addr2str(address, text.data(), text.size());
}

}  // namespace husk::sandbox
