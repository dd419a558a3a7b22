#include "cri/huskctl/streams/input_reader.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>

namespace husk::huskctl {
namespace {

constexpr std::size_t kPiece = std::size_t{64} << 10;

}  // namespace

InputReader::InputReader(int descriptor, std::function<void(StatusOr<std::string>)> each)
    : descriptor_(descriptor), each_(std::move(each)), stop_(eventfd(0, EFD_CLOEXEC)), thread_([this] { Run(); }) {}

InputReader::~InputReader() {
  const std::uint64_t one = 1;
  // The counter is far from full, so this cannot fail.
  [[maybe_unused]] const ssize_t written = write(stop_.get(), &one, sizeof(one));
  taken_.release();
  thread_.join();
}

bool InputReader::WaitForInput() const {
  std::array<pollfd, 2> watched = {pollfd{.fd = descriptor_, .events = POLLIN, .revents = 0},
                                   pollfd{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
  while (poll(watched.data(), watched.size(), -1) < 0) {
    if (errno != EINTR) break;  // the read tells what it is
  }
  return watched[1].revents == 0;
}

void InputReader::Run() {
  std::string buffer(kPiece, '\0');
  while (WaitForInput()) {
    const ssize_t count = read(descriptor_, buffer.data(), buffer.size());
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count < 0 && errno != EIO) return each_(ErrnoStatus(errno, "read standard input"));
    each_(std::string(buffer, 0, static_cast<std::size_t>(count < 0 ? 0 : count)));
    if (count <= 0) return;
    taken_.acquire();
  }
}

}  // namespace husk::huskctl
