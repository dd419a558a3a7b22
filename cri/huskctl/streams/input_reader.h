// Reads a descriptor of any kind on a thread of its own, and no faster than what it reads is sent on.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_INPUT_READER_H_
#define HUSK_CRI_HUSKCTL_STREAMS_INPUT_READER_H_

#include <functional>
#include <semaphore>
#include <string>
#include <thread>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"

namespace husk::huskctl {

// A thread, because neither the descriptor's flags may be changed, which other processes share, nor can epoll watch a
// file.
class InputReader {
 public:
  // `each` gets a piece, on the reader's thread; an empty one is the end. After a piece it is called again once
  // Continue has been called; after the end or an error no more. The end of a terminal that hangs up is an end.
  InputReader(int descriptor, std::function<void(StatusOr<std::string>)> each);
  InputReader(const InputReader&) = delete;
  InputReader& operator=(const InputReader&) = delete;
  // Waits for nobody to type.
  ~InputReader();

  // Thread safe. Once for each piece.
  void Continue() { taken_.release(); }

 private:
  void Run();
  // False: it is time to stop.
  bool WaitForInput() const;

  const int descriptor_;
  const std::function<void(StatusOr<std::string>)> each_;
  UniqueFd stop_;
  std::counting_semaphore<> taken_{0};
  std::thread thread_;  // last: it uses the rest
};

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_INPUT_READER_H_
