// JSON that other programs wrote: parsed with limits, read without exceptions.
#ifndef HUSK_SANDBOX_NETWORK_JSON_H_
#define HUSK_SANDBOX_NETWORK_JSON_H_

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/common/status.h"

namespace husk::sandbox {

// An object, nested no deeper than that (what is parsed is later written by recursion). Else INVALID_ARGUMENT.
StatusOr<nlohmann::json> ParseJsonObject(const std::string& text, std::size_t maximum_depth = 64);

// Bytes that are not UTF-8 are replaced; never throws.
std::string WriteJson(const nlohmann::json& json);

// The member if it is there and a string, else "".
std::string StringMember(const nlohmann::json& object, const char* key);
// The member if it is there and an array, else an empty array. Lives as long as `object`.
const nlohmann::json& ArrayMember(const nlohmann::json& object, const char* key);
// The member if it is there and an object, else an empty object. Lives as long as `object`.
const nlohmann::json& ObjectMember(const nlohmann::json& object, const char* key);

// The whole file, at most 4 MiB.
StatusOr<std::string> ReadSmallFile(const std::string& path);

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_NETWORK_JSON_H_
