#include "agent/common/status.h"

#include <system_error>

#include "absl/strings/str_cat.h"

namespace husk {

Status Annotate(const Status& status, std::string_view doing) {
  if (status.ok()) return status;
  return {status.code(), absl::StrCat(absl::string_view(doing.data(), doing.size()), ": ", status.message())};
}

Status ErrnoStatus(int error, std::string_view doing) {
  // generic_category().message() is thread safe, unlike strerror().
  return {absl::ErrnoToStatusCode(error),
          absl::StrCat(absl::string_view(doing.data(), doing.size()), ": ", std::generic_category().message(error))};
}

}  // namespace husk
