#include "images/text_file.h"

#include <cerrno>
#include <fstream>

#include "images/text.h"

namespace husk::images {

StatusOr<std::string> ReadTextFile(const std::string& path, std::size_t most_mib) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::FailedPreconditionError(ErrnoStatus(errno, Concat("read ", Excerpt(path))).message());
  const std::size_t most = most_mib << 20;
  std::string text(most + 1, '\0');
  // Not by an istreambuf_iterator, which throws where the file is a directory.
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return absl::FailedPreconditionError(Concat("read ", Excerpt(path), ": it cannot be read"));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > most)
    return absl::FailedPreconditionError(Concat(Excerpt(path), " is larger than ", most_mib, " MiB"));
  return text;
}

}  // namespace husk::images
