#include "sandbox/input_writer.h"

#include <utility>

namespace husk::sandbox {

agent::v1::WriteStdinRequest InputWriter::Request() const {
  agent::v1::WriteStdinRequest request;
  request.set_container_id(container_id_);
  request.set_exec_id(exec_id_);
  return request;
}

Status InputWriter::Write(const Context& context, std::string data, bool end) {
  if (!offset_) {
    // Nothing at the very beginning is a repetition, and the answer is where the stream stands.
    HUSK_ASSIGN_OR_RETURN(const agent::v1::WriteStdinResponse present, client_.WriteStdin(context, Request()));
    offset_ = present.offset();
  }
  const std::uint64_t target = *offset_ + data.size();
  agent::v1::WriteStdinRequest request = Request();
  request.set_offset(*offset_);
  request.set_data(std::move(data));
  request.set_close(end);
  while (true) {
    HUSK_ASSIGN_OR_RETURN(const agent::v1::WriteStdinResponse response, client_.WriteStdin(context, request));
    if (response.offset() == target) break;
    if (response.offset() <= request.offset() || response.offset() > target) {
      return absl::InternalError("the guest took what it was not given");
    }
    request.mutable_data()->erase(0, response.offset() - request.offset());
    request.set_offset(response.offset());
  }
  offset_ = target;
  return absl::OkStatus();
}

}  // namespace husk::sandbox
