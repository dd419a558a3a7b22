#include "absl/strings/str_cat.h"
#include "agent/common/context.h"
#include "cri/huskctl/commands.h"
#include "cri/huskctl/log_reader.h"
#include "cri/huskctl/support.h"

namespace husk::huskctl {

StatusOr<int> Logs(Client& client, const std::string& container, bool follow) {
  HUSK_ASSIGN_OR_RETURN(const api::Container found, FindContainer(client, container));
  api::ContainerStatusRequest request;
  request.set_container_id(found.id());
  HUSK_ASSIGN_OR_RETURN(api::ContainerStatusResponse status, client.Call(request));
  if (status.status().log_path().empty()) {
    return absl::FailedPreconditionError(absl::StrCat("container ", container, " was made without a log"));
  }
  LogReader log(status.status().log_path(), "");
  for (;;) {
    // The state before the file: what was written before the exit is in the file when the exit shows.
    const bool more = follow && status.status().state() != api::CONTAINER_EXITED;
    HUSK_RETURN_IF_ERROR(log.Pump());
    if (!more) return 0;
    HUSK_RETURN_IF_ERROR(SleepFor(Context::Background(), std::chrono::milliseconds(200)));
    HUSK_ASSIGN_OR_RETURN(status, client.Call(request));
  }
}

}  // namespace husk::huskctl
