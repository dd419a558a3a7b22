// What a caller of the CRI asked to be streamed, remembered under a token until its client comes.
#ifndef HUSK_CRI_STREAMING_STREAM_REQUEST_H_
#define HUSK_CRI_STREAMING_STREAM_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

namespace husk::cri {

struct StreamRequest {
  enum class Kind { kExec, kAttach, kPortForward };
  Kind kind = Kind::kExec;
  std::string container_id;
  std::vector<std::string> command;  // of an exec
  bool tty = false;
  bool standard_input = false;
  bool standard_output = false;
  bool standard_error = false;
  std::string pod_id;                // of a port-forward, instead of all above
  std::vector<std::uint16_t> ports;  // of a port-forward; empty: the client says
};

}  // namespace husk::cri

#endif  // HUSK_CRI_STREAMING_STREAM_REQUEST_H_
