// The Stream* calls: a list in pieces, for nodes whose list would not fit into one gRPC message.
#ifndef HUSK_CRI_SERVICE_LIST_STREAM_H_
#define HUSK_CRI_SERVICE_LIST_STREAM_H_

#include <google/protobuf/repeated_field.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <functional>
#include <stop_token>
#include <utility>
#include <vector>

#include "agent/common/context.h"
#include "agent/common/status.h"
#include "cri/lanes.h"
#include "cri/service/grpc_status.h"
#include "cri/service/lane_call.h"

namespace husk::cri {

// A piece is closed when it has so many bytes: far from gRPC's limit of 16 MiB at the kubelet, large enough to be few.
inline constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

// Moves the items into pieces, each with one item at least; none for an empty list.
template <typename Piece, typename Item>
std::vector<Piece> InPieces(google::protobuf::RepeatedPtrField<Item>* items,
                            google::protobuf::RepeatedPtrField<Item>* (Piece::*field)()) {
  std::vector<Piece> pieces;
  std::size_t bytes = kPieceBytes;
  for (Item& item : *items) {
    if (bytes >= kPieceBytes) {
      pieces.emplace_back();
      bytes = 0;
    }
    bytes += item.ByteSizeLong();
    *(pieces.back().*field)()->Add() = std::move(item);
  }
  return pieces;
}

// A reactor that owns itself. The list is made at once, on a lane; gRPC then takes piece after piece, and calls OnDone
// when all is over. OnCancel may come at any time before that and touches nothing but the stop source.
template <typename Piece>
class ListStream : public grpc::ServerWriteReactor<Piece> {
 public:
  using Handler = std::function<StatusOr<std::vector<Piece>>(const Context&)>;

  // Returns at once. The request that `handler` reads belongs to gRPC and lives as long as the reactor.
  static grpc::ServerWriteReactor<Piece>* Post(Lanes* lanes, LaneClass lane_class, const char* method,
                                               grpc::CallbackServerContext* context, Handler handler) {
    auto* stream = new ListStream(lanes, method, *context, std::move(handler));
    const Status posted = SubmitCall(lanes, lane_class, method, stream->context_, [stream] { stream->Run(); });
    if (!posted.ok()) stream->Finish(ToGrpcStatus(posted));
    return stream;
  }

 private:
  ListStream(const Lanes* lanes, const char* method, const grpc::CallbackServerContext& context, Handler handler)
      : lanes_(lanes),
        method_(method),
        context_(CallContext(context, cancelled_.get_token())),
        handler_(std::move(handler)) {}

  void Run() {
    const Status status = RunHandler(*lanes_, method_, context_, [this](const Context& call) -> Status {
      HUSK_ASSIGN_OR_RETURN(pieces_, handler_(call));
      return absl::OkStatus();
    });
    handler_ = nullptr;
    if (!status.ok()) {
      this->Finish(ToGrpcStatus(status));
    } else {
      WriteNext();
    }
  }

  // The last touch of this thread: gRPC may go on with another.
  void WriteNext() {
    if (next_ == pieces_.size()) {
      this->Finish(grpc::Status::OK);
    } else {
      this->StartWrite(&pieces_[next_++]);
    }
  }

  void OnWriteDone(bool ok) override {
    if (ok) return WriteNext();
    this->Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the client has gone"));
  }
  void OnCancel() override { cancelled_.request_stop(); }
  void OnDone() override { delete this; }

  const Lanes* const lanes_;
  const char* const method_;
  std::stop_source cancelled_;
  const Context context_;
  Handler handler_;
  std::vector<Piece> pieces_;
  std::size_t next_ = 0;
};

}  // namespace husk::cri

#endif  // HUSK_CRI_SERVICE_LIST_STREAM_H_
