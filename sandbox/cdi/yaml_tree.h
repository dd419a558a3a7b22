// YAML, and JSON with it, as a JSON value.
#ifndef HUSK_SANDBOX_CDI_YAML_TREE_H_
#define HUSK_SANDBOX_CDI_YAML_TREE_H_

#include <nlohmann/json.hpp>
#include <string_view>

#include "agent/common/status.h"

namespace husk::sandbox {

// Plain scalars are numbers (also octal ones with a leading 0), booleans or null where they look like it. An alias
// stands for a copy; INVALID_ARGUMENT for more than 100,000 values, 64 levels, keys that are no scalars or come twice.
StatusOr<nlohmann::json> ParseYamlTree(std::string_view text);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_CDI_YAML_TREE_H_
