#include "sandbox/output_tap.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "sandbox/waiting.h"

namespace husk::sandbox {

void OutputTap::Put(OutputKind kind, std::string_view bytes) {
  if (bytes.empty()) return;
  bool overflown = false;
  {
    const MutexLock lock(mutex_);
    if (closed_ || overflown_) return;
    overflown = overflown_ = bytes_ + bytes.size() > kLimit;
    if (overflown_) {
      pieces_.clear();
    } else if (!pieces_.empty() && pieces_.back().kind == kind) {
      pieces_.back().bytes.append(bytes);
    } else {
      pieces_.push_back({.kind = kind, .bytes = std::string(bytes)});
    }
    bytes_ += bytes.size();
    changed_.NotifyAll();
  }
  // Whoever is told may want the mutex.
  if (overflown) cut_off_.request_stop();
}

void OutputTap::Close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  changed_.NotifyAll();
}

Status OutputTap::CutOffError() const {
  return absl::ResourceExhaustedError(absl::StrCat("the client reads too slowly: it is more than ", kLimit,
                                                   " bytes behind the container, which does not wait for it"));
}

StatusOr<OutputTap::Piece> OutputTap::Take(const Context& context) {
  Piece piece;
  bool overflown = false;
  HUSK_RETURN_IF_ERROR(WaitFor(context, mutex_, changed_, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    overflown = overflown_;
    if (overflown_) return true;
    if (pieces_.empty()) return closed_;
    piece = std::move(pieces_.front());
    pieces_.pop_front();
    bytes_ -= piece.bytes.size();
    return true;
  }));
  if (overflown) return CutOffError();
  return piece;
}

}  // namespace husk::sandbox
