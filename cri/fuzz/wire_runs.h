// What the fuzz targets of the two wires share: the same bytes, cut in two ways, must mean the same.
#ifndef HUSK_CRI_FUZZ_WIRE_RUNS_H_
#define HUSK_CRI_FUZZ_WIRE_RUNS_H_

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/common/fuzz_require.h"
#include "cri/streaming/wire.h"
#include "cri/streaming/wire_for_test.h"

namespace husk::cri::fuzz {

// What came of one run: the events in words, the error, and the bytes for the peer.
inline std::vector<std::string> RunWire(Wire& wire, std::string_view bytes, std::size_t piece) {
  std::vector<WireEvent> events;
  Status status = absl::OkStatus();
  for (std::string_view rest = bytes; status.ok() && !rest.empty(); rest.remove_prefix(std::min(piece, rest.size()))) {
    status = wire.Receive(rest.substr(0, piece), &events);
  }
  std::size_t data = 0;
  for (const WireEvent& event : events) data += event.data.size();
  husk::fuzz::Require(data <= bytes.size(), "no data comes that was not sent");
  std::vector<std::string> result = Words(events);
  if (!status.ok()) {
    husk::fuzz::RequireSoundError(status);
    result.push_back("error " + std::string(status.message()));
  } else {
    // Once on each: into how many pieces data comes depends on the cuts.
    std::set<WireStream> streams;
    for (const WireEvent& event : events) streams.insert(event.stream);
    for (const WireStream stream : streams) {
      wire.Send(stream, "answer");
      wire.SendEnd(stream);
    }
    wire.SendClose();
  }
  result.push_back(wire.TakeOutput());
  husk::fuzz::Require(result.back().size() <= 200 * events.size() + 20 * bytes.size() + 100, "answers are bounded");
  return result;
}

}  // namespace husk::cri::fuzz

#endif  // HUSK_CRI_FUZZ_WIRE_RUNS_H_
