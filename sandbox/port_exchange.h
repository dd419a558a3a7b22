// Where who has a client's connections meets who carries their bytes to ports in a guest.
#ifndef HUSK_SANDBOX_PORT_EXCHANGE_H_
#define HUSK_SANDBOX_PORT_EXCHANGE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/mutex.h"
#include "agent/common/status.h"

namespace husk::sandbox {

// The connections of one client, by numbers that rise. Thread safe, and made for thousands of connections: whatever one
// of them waits for, the others go on. The hooks are called without locks, by the carrier's threads.
class PortExchange {
 public:
  // Input of all connections that may lie here: then the client should be read from no further.
  static constexpr std::size_t kInputLimit = std::size_t{2} << 20;
  // Output that may be on its way to the client.
  static constexpr std::size_t kOutputLimit = std::size_t{512} << 10;
  // Of one connection at a time, and of all together.
  static constexpr std::size_t kLargestInput = std::size_t{256} << 10;
  static constexpr std::size_t kLargestBatch = std::size_t{1} << 20;

  struct Hooks {
    std::function<void(std::uint64_t connection, std::string bytes)> output;
    std::function<void(std::uint64_t connection)> output_ended;
    // Neither direction goes on: both have ended, or it says why not. The connection is forgotten.
    std::function<void(std::uint64_t connection, const Status& status)> over;
    std::function<void()> read_on;  // input_full() may have become false
  };
  explicit PortExchange(Hooks hooks) : hooks_(std::move(hooks)) {}

  // ---- the client's side: nothing waits. Unknown connections are passed over. ---------------------------------------

  // `connection` is above all that were opened before.
  void Open(std::uint64_t connection, std::uint16_t port);
  void Input(std::uint64_t connection, std::string_view bytes);
  // The guest's program will see the end of what it reads.
  void EndInput(std::uint64_t connection);
  // Both ways at once; `over` is not called for it.
  void Close(std::uint64_t connection);
  // Nothing more will be opened: the carrier ends with the last connection.
  void NoMore();
  [[nodiscard]] bool input_full();
  // That many bytes that were given to `output` have left.
  void Sent(std::size_t bytes);

  // ---- the carrier's side -------------------------------------------------------------------------------------------

  struct Opening {
    std::uint64_t connection = 0;
    std::uint16_t port = 0;
  };
  struct Piece {
    std::uint64_t connection = 0;
    std::uint64_t offset = 0;
    std::string bytes = {};
    bool end = false;
  };
  struct Batch {
    std::vector<Opening> openings;
    std::vector<Piece> pieces;
    std::vector<std::uint64_t> closed;  // of those that were given out as openings
    [[nodiscard]] bool empty() const { return openings.empty() && pieces.empty() && closed.empty(); }
  };
  // Waits for something to do; empty: no connection is left, and no more will come. Input is given again until it is
  // taken. One thread only.
  StatusOr<Batch> Next(const Context& context);
  // The answer to a piece: `offset` is the next byte that is wanted. If it did not take all, it waits for Writable.
  void Taken(const Piece& piece, std::uint64_t offset);
  void Writable(std::uint64_t connection);

  // Until there is room for output.
  Status AwaitRoom(const Context& context);
  // A piece of output that begins at `offset`; what is known of it already is passed over. The offset of the next byte.
  // DATA_LOSS if some are missing in between, NOT_FOUND for a connection that is no more.
  StatusOr<std::uint64_t> Output(std::uint64_t connection, std::uint64_t offset, std::string_view bytes, bool end);
  void Failed(std::uint64_t connection, const Status& why);
  // Whether what is told of a connection, up to this offset of its output, is more than was told before. Remembers the
  // version. Before Output.
  bool IsNews(std::uint64_t connection, std::uint64_t version, std::uint64_t end);

 private:
  struct Connection {
    std::uint16_t port = 0;
    std::string input = {};  // not taken yet, behind `passed` bytes that are
    std::size_t passed = 0;
    std::uint64_t offset = 0;  // of the first byte not taken
    bool input_ended = false;
    bool end_taken = false;
    bool opened = false;    // given out
    bool waiting = true;    // for Writable
    bool writable = false;  // told since the last piece was given out
    bool queued = false;    // stands in ready_
    std::uint64_t received = 0;
    std::uint64_t version = 0;
    bool output_ended = false;

    [[nodiscard]] std::size_t left() const { return input.size() - passed; }
    [[nodiscard]] bool wants_to_send() const { return left() > 0 || (input_ended && !end_taken); }
  };
  using Connections = std::map<std::uint64_t, Connection>;

  void Queue(std::uint64_t number, Connection& connection) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Batch Collect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static Piece PieceOf(std::uint64_t number, Connection& connection, std::size_t room);
  // Its bytes are no longer waited for.
  void Forget(Connections::iterator found) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // If both directions have ended.
  bool ForgetIfOver(Connections::iterator found) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Hooks hooks_;
  Mutex mutex_;
  ConditionVariable changed_;
  Connections connections_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::uint64_t> ready_ ABSL_GUARDED_BY(mutex_);  // with something to give out; may name some that are gone
  std::vector<std::uint64_t> closed_ ABSL_GUARDED_BY(mutex_);
  bool no_more_ ABSL_GUARDED_BY(mutex_) = false;
  std::size_t input_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::size_t unsent_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace husk::sandbox

#endif  // HUSK_SANDBOX_PORT_EXCHANGE_H_
