#include "cri/huskctl/streams/remote_command.h"

#include <poll.h>

#include <utility>
// Boost 1.74 forgets <utility>.
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <cerrno>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "cri/huskctl/streams/command_status.h"
#include "cri/huskctl/streams/detach_keys.h"
#include "cri/huskctl/streams/input_reader.h"
#include "cri/huskctl/streams/terminal.h"
#include "cri/huskctl/streams/web_socket.h"

namespace husk::huskctl {
namespace {

constexpr char kProtocol[] = "v5.channel.k8s.io";

enum Channel : char { kInput = 0, kOutput = 1, kErrorOutput = 2, kStatus = 3, kSize = 4, kHalfClose = '\xff' };

// Blocks, which is what keeps the server back. EAGAIN: whoever shares the descriptor has made it so.
Status WriteAll(int descriptor, std::string_view bytes, const char* what) {
  while (!bytes.empty()) {
    const ssize_t count = write(descriptor, bytes.data(), bytes.size());
    if (count >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      pollfd ready{.fd = descriptor, .events = POLLOUT, .revents = 0};
      poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      return ErrnoStatus(errno, absl::StrCat("write to ", what));
    }
  }
  return absl::OkStatus();
}

// All but the reading of the input happens on the thread of Run.
class RemoteCommand {
 public:
  explicit RemoteCommand(const RemoteCommandOptions& options) : options_(options) {}

  StatusOr<RemoteCommandEnd> Run();

 private:
  void Begin();
  void ReadNext();
  void OnMessage(const std::string& message);
  void OnEnd(const Status& why);
  void OnInput(const StatusOr<std::string>& bytes);
  void Send(Channel channel, std::string_view bytes, std::function<void(const Status&)> done = nullptr);
  void SendSize(TerminalSize size);
  void WatchSize();
  void Leave();
  void End(StatusOr<RemoteCommandEnd> result);

  const RemoteCommandOptions& options_;
  boost::asio::io_context io_{1};
  std::shared_ptr<WebSocket> socket_;
  std::optional<boost::asio::signal_set> size_changes_;
  std::unique_ptr<RawTerminal> terminal_;
  DetachKeys keys_;
  std::string status_;
  bool leaving_ = false;
  std::optional<StatusOr<RemoteCommandEnd>> result_;
  std::unique_ptr<InputReader> input_;  // last: its thread uses the rest
};

StatusOr<RemoteCommandEnd> RemoteCommand::Run() {
  HUSK_ASSIGN_OR_RETURN(socket_, WebSocket::Create(io_, options_.url,
                                                   {.protocols = kProtocol,
                                                    .certificate_authority = options_.certificate_authority,
                                                    .ping_interval = options_.ping_interval}));
  socket_->Open([this](const Status& opened) {
    if (!opened.ok()) return End(opened);
    Begin();
  });
  io_.run();
  input_.reset();
  terminal_.reset();
  return *std::move(result_);
}

void RemoteCommand::End(StatusOr<RemoteCommandEnd> result) {
  if (!result_) result_ = std::move(result);
  io_.stop();
}

void RemoteCommand::Begin() {
  if (options_.tty && options_.standard_input) {
    StatusOr<std::unique_ptr<RawTerminal>> terminal = RawTerminal::Enter(options_.input);
    if (!terminal.ok()) return End(terminal.status());
    terminal_ = *std::move(terminal);
  }
  if (options_.tty) WatchSize();
  if (options_.standard_input) {
    input_ = std::make_unique<InputReader>(options_.input, [this](StatusOr<std::string> bytes) {
      boost::asio::post(io_, [this, read = std::move(bytes)] { OnInput(read); });
    });
  }
  ReadNext();
}

// ---- from the container ---------------------------------------------------------------------------------------------

void RemoteCommand::ReadNext() {
  socket_->Read([this](const StatusOr<std::string>& message) {
    if (leaving_) return;
    if (!message.ok()) return OnEnd(message.status());
    OnMessage(*message);
  });
}

void RemoteCommand::OnMessage(const std::string& message) {
  Status done;
  const std::string_view bytes = std::string_view(message).substr(message.empty() ? 0 : 1);
  if (!message.empty()) {
    switch (message.front()) {
      case kOutput:
        done = WriteAll(options_.output, bytes, "standard output");
        break;
      case kErrorOutput:
        done = WriteAll(options_.error_output, bytes, "standard error");
        break;
      case kStatus:
        status_.append(bytes);
        break;
      case kHalfClose:
        // That a stream has ended says nothing of the command.
        break;
      default:
        done = absl::InternalError(absl::StrCat("the streaming server speaks on channel ",
                                                static_cast<unsigned char>(message.front()), ", which is not its own"));
    }
  }
  if (!done.ok()) return End(done);
  ReadNext();
}

void RemoteCommand::OnEnd(const Status& why) {
  if (status_.empty() && absl::IsOutOfRange(why)) {
    return End(
        absl::UnavailableError("the streaming server has closed the connection without saying how the command ended"));
  }
  if (status_.empty()) return End(why);
  const StatusOr<int> exit_code = ParseCommandStatus(status_);
  if (!exit_code.ok()) return End(exit_code.status());
  End(RemoteCommandEnd{.exit_code = *exit_code});
}

// ---- to the container -----------------------------------------------------------------------------------------------

void RemoteCommand::Send(Channel channel, std::string_view bytes, std::function<void(const Status&)> done) {
  std::string message(1, static_cast<char>(channel));
  message.append(bytes);
  // What cannot be written shows at the reading too, and there with the status if there is one.
  socket_->Write(std::move(message), std::move(done));
}

void RemoteCommand::OnInput(const StatusOr<std::string>& bytes) {
  if (!bytes.ok()) return End(bytes.status());
  if (bytes->empty()) return Send(kHalfClose, std::string(1, static_cast<char>(kInput)));
  const bool watched = options_.attached && terminal_ != nullptr;
  const std::string passed = watched ? keys_.Filter(*bytes) : *bytes;
  if (keys_.detached()) {
    if (!passed.empty()) Send(kInput, passed);
    return Leave();
  }
  // Keys that are held back are no reason not to read on.
  if (passed.empty()) return input_->Continue();
  Send(kInput, passed, [this](const Status& /*written*/) { input_->Continue(); });
}

void RemoteCommand::Leave() {
  leaving_ = true;
  socket_->Close([this] { End(RemoteCommandEnd{.exit_code = 0, .detached = true}); });
}

void RemoteCommand::SendSize(TerminalSize size) {
  Send(kSize, nlohmann::json({{"Width", size.width}, {"Height", size.height}}).dump());
}

void RemoteCommand::WatchSize() {
  const auto size = SizeOfTerminal(options_.input);
  if (!size_changes_) {
    size_changes_.emplace(io_, SIGWINCH);
    // A program that was there before redraws when its size changes, and only then.
    if (size && options_.attached) {
      SendSize({.width = static_cast<std::uint16_t>(size->width + 1),
                .height = static_cast<std::uint16_t>(size->height + 1)});
    }
  }
  if (size) SendSize(*size);
  size_changes_->async_wait([this](const boost::system::error_code& error, int) {
    if (!error) WatchSize();
  });
}

}  // namespace

StatusOr<RemoteCommandEnd> RunRemoteCommand(const RemoteCommandOptions& options) {
  if (options.tty && isatty(options.input) != 1) {
    return absl::FailedPreconditionError("standard input is no terminal");
  }
  RemoteCommand command(options);
  return command.Run();
}

}  // namespace husk::huskctl
