// QMP's wire: lines of JSON. What comes from QEMU is hostile, as a guest may have taken it over.
#ifndef HUSK_HYPERVISOR_QEMU_QMP_CODEC_H_
#define HUSK_HYPERVISOR_QEMU_QMP_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "agent/common/status.h"

namespace husk::hypervisor {

// Longer than any answer to what Husk asks.
inline constexpr std::size_t kMaximumQmpLine = std::size_t{4} << 20;

struct QmpGreeting {};
// The answer to the command with this id.
struct QmpReply {
  std::uint64_t id = 0;
  StatusOr<nlohmann::json> result;
};
struct QmpEvent {
  std::string name;
  nlohmann::json data;  // an object, possibly empty
};
using QmpMessage = std::variant<QmpGreeting, QmpReply, QmpEvent>;

// Cuts bytes into messages. After an error it must not be used again.
class QmpDecoder {
 public:
  // Appends the messages that `bytes` complete. INVALID_ARGUMENT for what is no QMP; RESOURCE_EXHAUSTED for a line that
  // is too long.
  Status Feed(std::string_view bytes, std::vector<QmpMessage>& messages);

 private:
  std::string line_;
};

// One command as a line. `arguments` may be null.
std::string EncodeQmpCommand(std::uint64_t id, std::string_view command, const nlohmann::json& arguments);

// Text from QEMU made fit for our errors and logs: one line without control characters, at most 512 bytes.
std::string Printable(std::string_view text);

}  // namespace husk::hypervisor

#endif  // HUSK_HYPERVISOR_QEMU_QMP_CODEC_H_
