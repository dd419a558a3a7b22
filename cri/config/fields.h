// The one table of the configuration's keys: reading, range checks, printing and the list of known names come from it.
#ifndef HUSK_CRI_CONFIG_FIELDS_H_
#define HUSK_CRI_CONFIG_FIELDS_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/status.h"
#include "cri/config/config.h"

namespace YAML {
class Emitter;
class Node;
}  // namespace YAML

namespace husk::cri {

struct ConfigField {
  std::string key;  // "vm.default_memory"
  // Sets the field; the error says what is expected, without the place.
  std::function<Status(const YAML::Node& node, Config* config)> set;
  std::function<void(const Config& config, YAML::Emitter* out)> print;
};

// In the order in which they are printed; keys of one section stand together.
const std::vector<ConfigField>& ConfigFields();

// "256Mi", "8Gi", "1000M" or a number of bytes.
StatusOr<std::uint64_t> ParseByteSize(std::string_view text);
// The shortest exact form that ParseByteSize reads back.
std::string FormatByteSize(std::uint64_t bytes);

// The candidate that differs least from `name`, or empty if none is near.
std::string NearestName(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace husk::cri

#endif  // HUSK_CRI_CONFIG_FIELDS_H_
