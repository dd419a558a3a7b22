// CNI network configurations. The first byte picks between a list of plugins and a single one.
#include <nlohmann/json.hpp>
#include <string>

#include "agent/common/fuzz_require.h"
#include "sandbox/network/cni_config.h"

namespace husk::sandbox {
namespace {

void RequireSoundList(const CniConfigList& list) {
  fuzz::Require(!list.name.empty() && list.name.find('/') == std::string::npos, "a network's name is fit for a file");
  fuzz::Require(!list.plugins.empty(), "there is a plugin");
  for (const CniPlugin& plugin : list.plugins) {
    fuzz::Require(!plugin.type.empty() && plugin.type.find('/') == std::string::npos && plugin.type != "..",
                  "a plugin's type is a file name");
    for (const char c : plugin.type) fuzz::Require(c >= ' ' && c <= '~', "a plugin's type is printable");
  }
}

void Run(std::uint8_t choice, const std::string& text) {
  const bool is_list = choice % 2 == 0;
  const auto list = is_list ? ParseConfigList(text, "10-x.conflist") : ParseSingleConfig(text, "10-x.conf");
  if (!list.ok()) return fuzz::RequireSoundError(list.status());
  RequireSoundList(*list);
  const std::string written = ToJson(*list).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const auto again = ParseConfigList(written, "again", /*maximum_depth=*/80);
  fuzz::Require(again.ok() && again->name == list->name && again->version == list->version &&
                    again->plugins.size() == list->plugins.size(),
                "a list that is written and read is the same");
}

}  // namespace
}  // namespace husk::sandbox

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 0) husk::sandbox::Run(*data, std::string(husk::fuzz::AsText(data + 1, size - 1)));
  return 0;
}
