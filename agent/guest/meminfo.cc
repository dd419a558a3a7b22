#include "agent/guest/meminfo.h"

#include <vector>

#include "agent/guest/files.h"
#include "agent/guest/text.h"

namespace husk::agent {

std::uint64_t MeminfoBytes(const std::string& path, std::string_view field) {
  const auto meminfo = ReadFile(path, 4096);
  if (!meminfo.ok()) return 0;
  for (const std::string_view line : Split(*meminfo, '\n')) {
    const std::vector<std::string_view> words = SplitWords(line, ' ');
    std::uint64_t kibibytes = 0;
    if (words.size() >= 2 && words[0] == field && ParseNumber(words[1], kibibytes)) return kibibytes * 1024;
  }
  return 0;
}

std::uint64_t MemoryTotalBytes() {
  return MeminfoBytes("/proc/meminfo", "MemTotal:");
}

}  // namespace husk::agent
