// Where the CRI says that a stream is to be had.
#ifndef HUSK_CRI_HUSKCTL_STREAMS_STREAM_URL_H_
#define HUSK_CRI_HUSKCTL_STREAMS_STREAM_URL_H_

#include <string>

#include "agent/common/status.h"

namespace husk::huskctl {

struct StreamUrl {
  bool tls = false;
  std::string host;    // a name or an address, an IPv6 one without brackets
  std::string port;    // in digits; the scheme's own if the URL has none
  std::string target;  // the path, and a query if there is one

  // As it stands in a request's Host header.
  [[nodiscard]] std::string authority() const;
};

// http or https. INTERNAL for what no client could come to: the URL is huskd's, not the user's.
StatusOr<StreamUrl> ParseStreamUrl(const std::string& url);

}  // namespace husk::huskctl

#endif  // HUSK_CRI_HUSKCTL_STREAMS_STREAM_URL_H_
