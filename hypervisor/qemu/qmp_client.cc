#include "hypervisor/qemu/qmp_client.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "hypervisor/qemu/wait.h"

namespace husk::hypervisor {
namespace {

using nlohmann::json;

// One read per turn of the I/O thread, so that one QEMU that floods us does not starve the others.
constexpr std::size_t kReadBytes = 65536;

ssize_t SendWithDescriptor(int socket, std::string_view bytes, int descriptor) {
  iovec vector{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};  // sendmsg does not write there
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (descriptor >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

QmpClient::QmpClient(IoThread& io_thread, UniqueFd socket, EventHandler on_event)
    : io_thread_(io_thread), on_event_(std::move(on_event)), socket_(io_thread.context()) {
  boost::system::error_code error;
  const int descriptor = socket.Release();
  error = socket_.assign(descriptor, error);
  if (error) {
    close(descriptor);
    const MutexLock lock(mutex_);
    broken_ = absl::UnavailableError(absl::StrCat("QMP: watch the socket: ", error.message()));
  }
}

StatusOr<std::shared_ptr<QmpClient>> QmpClient::Connect(const Context& context, IoThread& io_thread, UniqueFd socket,
                                                        EventHandler on_event) {
  // make_shared cannot reach the private constructor.
  std::shared_ptr<QmpClient> client(new QmpClient(io_thread, std::move(socket), std::move(on_event)));
  HUSK_RETURN_IF_ERROR(client->status());
  io_thread.Post([client] { client->WaitReadable(); });
  Status status = client->AwaitGreeting(context);
  if (status.ok()) status = client->Execute(context, "qmp_capabilities").status();
  if (!status.ok()) {
    client->Close();
    return status;
  }
  return client;
}

Status QmpClient::AwaitGreeting(const Context& context) {
  const WakeOnStop wake(context, mutex_, changed_);
  const MutexLock lock(mutex_);
  while (!greeted_) {
    HUSK_RETURN_IF_ERROR(broken_);
    HUSK_RETURN_IF_ERROR_DOING(WaitOnce(context, mutex_, changed_), "wait for QMP's greeting");
  }
  return absl::OkStatus();
}

StatusOr<json> QmpClient::Execute(const Context& context, std::string_view command, const json& arguments,
                                  UniqueFd descriptor) {
  const std::string doing = absl::StrCat("QMP ", std::string(command));
  HUSK_RETURN_IF_ERROR_DOING(context.Check(), doing);
  auto queued = std::make_shared<Command>();
  queued->name = command;
  queued->descriptor = std::move(descriptor);

  const WakeOnStop wake(context, mutex_, changed_);
  const MutexLock lock(mutex_);
  HUSK_RETURN_IF_ERROR_DOING(broken_, doing);
  Enqueue(queued, arguments);
  while (!queued->result) {
    const Status status = WaitOnce(context, mutex_, changed_);
    if (!status.ok()) {
      queued->abandoned = true;
      return Annotate(status, doing);
    }
  }
  if (!queued->result->ok()) return Annotate(queued->result->status(), doing);
  return std::move(*queued->result);
}

void QmpClient::Post(std::string_view command) {
  auto queued = std::make_shared<Command>();
  queued->name = command;
  const MutexLock lock(mutex_);
  if (broken_.ok()) Enqueue(std::move(queued), nullptr);
}

void QmpClient::Enqueue(std::shared_ptr<Command> command, const json& arguments) {
  command->id = next_id_++;
  command->line = EncodeQmpCommand(command->id, command->name, arguments);
  queue_.push_back(std::move(command));
  io_thread_.Post([self = shared_from_this()] { self->Pump(); });
}

std::unique_ptr<QmpClient::Expectation> QmpClient::Expect(std::function<bool(const QmpEvent&)> matches) {
  const MutexLock lock(mutex_);
  expected_.push_front({.matches = std::move(matches)});
  return std::make_unique<Expectation>(shared_from_this(), expected_.begin());
}

Status QmpClient::status() const {
  const MutexLock lock(mutex_);
  return broken_;
}

void QmpClient::Close() {
  io_thread_.Post(
      [self = shared_from_this()] { self->Break(absl::UnavailableError("QMP: the connection was closed")); });
}

void QmpClient::WaitReadable() {
  if (!socket_.is_open()) return;
  socket_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [self = shared_from_this()](const boost::system::error_code& error) {
                       if (!error) self->Read();
                     });
}

void QmpClient::Read() {
  std::array<char, kReadBytes> buffer;  // NOLINT: recv() fills it
  const ssize_t count = recv(socket_.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return WaitReadable();
  if (count < 0) return Break(absl::UnavailableError(absl::StrCat("QMP: read: ", strerrordesc_np(errno))));
  if (count == 0) return Break(absl::UnavailableError("QMP: QEMU closed the connection"));

  std::vector<QmpMessage> messages;
  const Status status = decoder_.Feed({buffer.data(), static_cast<std::size_t>(count)}, messages);
  for (auto& message : messages) Handle(std::move(message));
  if (!socket_.is_open()) return;
  if (!status.ok()) return Break(absl::UnavailableError(status.message()));
  WaitReadable();
}

void QmpClient::Handle(QmpMessage message) {
  if (auto* event = std::get_if<QmpEvent>(&message)) {
    if (on_event_) on_event_(*event);
    const MutexLock lock(mutex_);
    for (auto& expected : expected_) expected.seen = expected.seen || expected.matches(*event);
    changed_.NotifyAll();
  } else if (auto* reply = std::get_if<QmpReply>(&message)) {
    HandleReply(std::move(*reply));
  } else {
    const MutexLock lock(mutex_);
    greeted_ = true;
    changed_.NotifyAll();
  }
}

void QmpClient::HandleReply(QmpReply reply) {
  bool expected = false;
  {
    const MutexLock lock(mutex_);
    expected = busy_ && unsent_.empty() && !queue_.empty() && queue_.front()->id == reply.id;
    if (expected) {
      queue_.front()->result = std::move(reply.result);
      queue_.pop_front();
      changed_.NotifyAll();
    }
  }
  // A reply to nothing means that QEMU is not itself any more.
  if (!expected) return Break(absl::UnavailableError("QMP: a reply to no command"));
  busy_ = false;
  Pump();
}

void QmpClient::Pump() {
  if (busy_ || !socket_.is_open()) return;
  {
    const MutexLock lock(mutex_);
    while (!queue_.empty() && queue_.front()->abandoned) queue_.pop_front();
    if (queue_.empty()) return;
    unsent_ = std::move(queue_.front()->line);
    unsent_descriptor_ = std::move(queue_.front()->descriptor);
    busy_ = true;
  }
  Send();
}

void QmpClient::Send() {
  while (!unsent_.empty()) {
    const ssize_t count = SendWithDescriptor(socket_.native_handle(), unsent_, unsent_descriptor_.get());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      socket_.async_wait(boost::asio::posix::stream_descriptor::wait_write,
                         [self = shared_from_this()](const boost::system::error_code& error) {
                           if (!error) self->Send();
                         });
      return;
    }
    if (count < 0) return Break(absl::UnavailableError(absl::StrCat("QMP: write: ", strerrordesc_np(errno))));
    unsent_.erase(0, static_cast<std::size_t>(count));
    unsent_descriptor_.Reset();  // it went along with the first byte
  }
}

void QmpClient::Break(const Status& status) {
  unsent_.clear();
  unsent_descriptor_.Reset();
  {
    const MutexLock lock(mutex_);
    if (broken_.ok()) broken_ = status;
    for (const auto& command : queue_) command->result = broken_;
    queue_.clear();
    changed_.NotifyAll();
  }
  boost::system::error_code ignored;
  ignored = socket_.close(ignored);
}

QmpClient::Expectation::~Expectation() {
  const MutexLock lock(client_->mutex_);
  client_->expected_.erase(expected_);
}

Status QmpClient::Expectation::Wait(const Context& context) {
  const WakeOnStop wake(context, client_->mutex_, client_->changed_);
  const MutexLock lock(client_->mutex_);
  while (!expected_->seen) {
    HUSK_RETURN_IF_ERROR(client_->broken_);
    HUSK_RETURN_IF_ERROR_DOING(WaitOnce(context, client_->mutex_, client_->changed_), "wait for a QMP event");
  }
  return absl::OkStatus();
}

}  // namespace husk::hypervisor
