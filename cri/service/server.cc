#include "cri/service/server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "agent/common/unique_fd.h"
#include "cri/service/services.h"

namespace husk::cri {

namespace {

constexpr int kMaximumMessage = 16 << 20;  // the kubelet's limit in both directions

StatusOr<sockaddr_un> SocketAddress(const std::string& path) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  if (path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(absl::StrCat("the socket's path is too long (", path.size(), " of at most ",
                                                   sizeof address.sun_path - 1, " bytes): ", path));
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  return address;
}

// OK if nothing is at `path`, or a socket that nobody listens on any more.
Status CheckNobodyListens(const std::string& path) {
  struct stat existing{};
  if (lstat(path.c_str(), &existing) != 0) {
    return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, "look at " + path);
  }
  if (!S_ISSOCK(existing.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " exists and is no socket: move it away, or choose another --listen"));
  }
  HUSK_ASSIGN_OR_RETURN(const sockaddr_un address, SocketAddress(path));
  const UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!probe.valid()) return ErrnoStatus(errno, "socket");
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("another process serves ", path, ": stop it, or choose another --listen"));
}

// The socket is bound in a directory of its own that only we may enter, gets its mode, and then its name: no moment at
// which others could connect with the wrong rights, and no change of the process's umask under other threads.
class SocketName {
 public:
  static StatusOr<SocketName> Prepare(const std::string& path) {
    HUSK_RETURN_IF_ERROR(CheckNobodyListens(path));
    std::string directory = path.substr(0, path.rfind('/') + 1) + ".huskXXXXXX";
    if (mkdtemp(directory.data()) == nullptr) return ErrnoStatus(errno, "make a directory beside the socket " + path);
    SocketName name(path, std::move(directory));
    HUSK_RETURN_IF_ERROR(SocketAddress(name.bound_path()).status());
    return name;
  }

  SocketName(SocketName&& other) noexcept
      : path_(std::exchange(other.path_, "")),
        directory_(std::exchange(other.directory_, "")),
        named_(std::exchange(other.named_, false)) {}
  SocketName& operator=(SocketName&&) = delete;
  ~SocketName() { Remove(); }

  [[nodiscard]] std::string bound_path() const { return directory_ + "/s"; }

  Status Give() {
    constexpr mode_t kMode = 0660;
    if (chmod(bound_path().c_str(), kMode) != 0) return ErrnoStatus(errno, "set the mode of " + bound_path());
    if (std::rename(bound_path().c_str(), path_.c_str()) != 0) return ErrnoStatus(errno, "name the socket " + path_);
    named_ = true;
    rmdir(directory_.c_str());
    return absl::OkStatus();
  }

  void Remove() {
    if (named_) unlink(path_.c_str());
    named_ = false;
    if (!directory_.empty()) {
      unlink(bound_path().c_str());
      rmdir(directory_.c_str());
      directory_.clear();
    }
  }

 private:
  SocketName(std::string path, std::string directory) : path_(std::move(path)), directory_(std::move(directory)) {}

  std::string path_;
  std::string directory_;
  bool named_ = false;
};

class GrpcServer final : public Server {
 public:
  GrpcServer(SocketName name, Handlers* handlers, Lanes* lanes, sandbox::EventHub* events)
      : name_(std::move(name)),
        events_(events),
        runtime_service_(NewRuntimeService(handlers, lanes, events)),
        image_service_(NewImageService(handlers, lanes)) {}

  ~GrpcServer() override { Shutdown(std::chrono::milliseconds(0)); }

  Status Listen() {
    grpc::ServerBuilder builder;
    int bound = 0;
    builder.AddListeningPort("unix:" + name_.bound_path(), grpc::InsecureServerCredentials(), &bound);
    builder.SetMaxReceiveMessageSize(kMaximumMessage);
    builder.RegisterService(runtime_service_.get());
    builder.RegisterService(image_service_.get());
    server_ = builder.BuildAndStart();
    if (!server_ || bound == 0) {
      return absl::UnavailableError(absl::StrCat("gRPC cannot listen on ", name_.bound_path()));
    }
    return name_.Give();
  }

  void Shutdown(std::chrono::milliseconds grace) override {
    name_.Remove();
    if (server_) events_->Close();
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + grace);
    server_.reset();
  }

 private:
  SocketName name_;
  sandbox::EventHub* const events_;
  const std::unique_ptr<grpc::Service> runtime_service_;
  const std::unique_ptr<grpc::Service> image_service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

StatusOr<std::unique_ptr<Server>> Server::Start(const std::string& socket_path, Handlers* handlers, Lanes* lanes,
                                                sandbox::EventHub* events) {
  HUSK_ASSIGN_OR_RETURN(SocketName name, SocketName::Prepare(socket_path));
  auto server = std::make_unique<GrpcServer>(std::move(name), handlers, lanes, events);
  HUSK_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace husk::cri
