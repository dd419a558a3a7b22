#include "cri/streaming/http_head.h"

#include <utility>
// Boost 1.74 forgets <utility>.
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>

#include "absl/strings/str_cat.h"

namespace husk::cri {

StatusOr<std::optional<HttpHead>> TakeHttpHead(std::string* bytes) {
  const std::size_t end = bytes->find("\r\n\r\n");
  if (end == std::string::npos && bytes->size() <= kMaximumHttpHead) return std::optional<HttpHead>();
  if (end == std::string::npos || end > kMaximumHttpHead) {
    return absl::ResourceExhaustedError(absl::StrCat("the request's head is longer than ", kMaximumHttpHead, " bytes"));
  }
  namespace http = boost::beast::http;
  http::request_parser<http::empty_body> parser;
  parser.header_limit(kMaximumHttpHead + 4);
  boost::system::error_code error;
  parser.put(boost::asio::buffer(*bytes, end + 4), error);
  if (error || !parser.is_header_done()) {
    return absl::InvalidArgumentError(absl::StrCat("the request cannot be read: ", error.message()));
  }
  bytes->erase(0, end + 4);
  HttpHead head;
  const auto& message = parser.get();
  head.method = std::string(message.method_string());
  head.target = std::string(message.target());
  for (const auto& field : message) head.headers.emplace_back(field.name_string(), field.value());
  if (message.version() != 11) return absl::InvalidArgumentError("only HTTP/1.1 is spoken here");
  return std::optional<HttpHead>(std::move(head));
}

}  // namespace husk::cri
