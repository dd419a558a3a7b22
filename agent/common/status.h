// Helpers round absl::Status, the way every part of Husk reports failure.
//
// A layer that passes an error on adds what it was doing to what ("attach disk lun=3 of pod 4f2a...: QMP: ..."), so
// that the whole chain can be read in one line. Exceptions never cross a folder: an adaptor catches what a library
// throws and returns a Status.
#ifndef HUSK_AGENT_COMMON_STATUS_H_
#define HUSK_AGENT_COMMON_STATUS_H_

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace husk {

using absl::Status;
using absl::StatusOr;

// The same code, "<doing>: <message>". An OK status stays OK.
Status Annotate(const Status& status, std::string_view doing);

// A failed system call: the errno's canonical code, message "<doing>: <strerror>". `error` is an errno value.
Status ErrnoStatus(int error, std::string_view doing);

}  // namespace husk

#define HUSK_CONCAT_INNER(a, b) a##b
#define HUSK_CONCAT(a, b) HUSK_CONCAT_INNER(a, b)

// Returns from the function if `expr` (a Status) is not OK.
#define HUSK_RETURN_IF_ERROR(expr)                                                  \
  do {                                                                              \
    if (::husk::Status husk_status = (expr); !husk_status.ok()) return husk_status; \
  } while (false)

// The same, saying what was being done. `doing` is evaluated only on failure.
#define HUSK_RETURN_IF_ERROR_DOING(expr, doing)                                                              \
  do {                                                                                                       \
    if (::husk::Status husk_status = (expr); !husk_status.ok()) return ::husk::Annotate(husk_status, doing); \
  } while (false)

// NOLINTBEGIN(bugprone-macro-parentheses): lhs may be a declaration, which parentheses would break
// HUSK_ASSIGN_OR_RETURN(auto fd, OpenFile(path)): declares or assigns, or returns the error.
#define HUSK_ASSIGN_OR_RETURN(lhs, expr) HUSK_ASSIGN_OR_RETURN_INNER(HUSK_CONCAT(husk_status_or_, __LINE__), lhs, expr)
#define HUSK_ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                                \
  if (!tmp.ok()) return tmp.status();               \
  lhs = std::move(tmp).value()

// The same, saying what was being done.
#define HUSK_ASSIGN_OR_RETURN_DOING(lhs, expr, doing) \
  HUSK_ASSIGN_OR_RETURN_DOING_INNER(HUSK_CONCAT(husk_status_or_, __LINE__), lhs, expr, doing)
#define HUSK_ASSIGN_OR_RETURN_DOING_INNER(tmp, lhs, expr, doing) \
  auto tmp = (expr);                                             \
  if (!tmp.ok()) return ::husk::Annotate(tmp.status(), doing);   \
  lhs = std::move(tmp).value()
// NOLINTEND(bugprone-macro-parentheses)

#endif  // HUSK_AGENT_COMMON_STATUS_H_
