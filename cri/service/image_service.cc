// Each RPC: its lane, and the handler that serves it.
#include "cri/proto/api.grpc.pb.h"
#include "cri/service/list_stream.h"
#include "cri/service/services.h"
#include "cri/service/unary_call.h"

namespace husk::cri {

namespace api = ::runtime::v1;

namespace {

class ImageService final : public api::ImageService::CallbackService {
 public:
  ImageService(Handlers* handlers, Lanes* lanes) : handlers_(handlers), lanes_(lanes) {}

  grpc::ServerUnaryReactor* ListImages(grpc::CallbackServerContext* context, const api::ListImagesRequest* request,
                                       api::ListImagesResponse* response) override {
    return Post(LaneClass::kReadOnly, "ListImages", &Handlers::ListImages, context, request, response);
  }
  grpc::ServerUnaryReactor* ImageStatus(grpc::CallbackServerContext* context, const api::ImageStatusRequest* request,
                                        api::ImageStatusResponse* response) override {
    return Post(LaneClass::kReadOnly, "ImageStatus", &Handlers::ImageStatus, context, request, response);
  }
  grpc::ServerUnaryReactor* PullImage(grpc::CallbackServerContext* context, const api::PullImageRequest* request,
                                      api::PullImageResponse* response) override {
    return Post(LaneClass::kImage, "PullImage", &Handlers::PullImage, context, request, response);
  }
  grpc::ServerUnaryReactor* RemoveImage(grpc::CallbackServerContext* context, const api::RemoveImageRequest* request,
                                        api::RemoveImageResponse* response) override {
    return Post(LaneClass::kImage, "RemoveImage", &Handlers::RemoveImage, context, request, response);
  }
  grpc::ServerUnaryReactor* ImageFsInfo(grpc::CallbackServerContext* context, const api::ImageFsInfoRequest* request,
                                        api::ImageFsInfoResponse* response) override {
    return Post(LaneClass::kReadOnly, "ImageFsInfo", &Handlers::ImageFsInfo, context, request, response);
  }

  grpc::ServerWriteReactor<api::StreamImagesResponse>* StreamImages(grpc::CallbackServerContext* context,
                                                                    const api::StreamImagesRequest* request) override {
    return ListStream<api::StreamImagesResponse>::Post(
        lanes_, LaneClass::kReadOnly, "StreamImages", context,
        [handlers = handlers_, request](const Context& call) -> StatusOr<std::vector<api::StreamImagesResponse>> {
          api::ListImagesRequest filtered;
          *filtered.mutable_filter() = request->filter();
          api::ListImagesResponse list;
          HUSK_RETURN_IF_ERROR(handlers->ListImages(call, filtered, &list));
          return InPieces(list.mutable_images(), &api::StreamImagesResponse::mutable_images);
        });
  }

 private:
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* Post(LaneClass lane_class, const char* method,
                                 husk::Status (Handlers::*handler)(const Context&, const Request&, Response*),
                                 grpc::CallbackServerContext* context, const Request* request, Response* response) {
    return UnaryCall::Post(lanes_, lane_class, method, context,
                           [handlers = handlers_, handler, request, response](const Context& call) {
                             return (handlers->*handler)(call, *request, response);
                           });
  }

  Handlers* const handlers_;
  Lanes* const lanes_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewImageService(Handlers* handlers, Lanes* lanes) {
  return std::make_unique<ImageService>(handlers, lanes);
}

}  // namespace husk::cri
