// What trees of files take on their disk: the walk through one, and a meter that keeps the figures of many.
#ifndef HUSK_AGENT_GUEST_FILE_USAGE_H_
#define HUSK_AGENT_GUEST_FILE_USAGE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/common/status.h"
#include "agent/common/unique_fd.h"
#include "agent/guest/children.h"
#include "agent/guest/event_loop.h"
#include "agent/proto/agent.pb.h"

namespace husk::agent {

struct TreeUsage {
  std::uint64_t used_bytes = 0;  // blocks that are allocated; a file with several names in the tree counts once
  std::uint64_t inodes = 0;      // the tree's root included
};

// Walks through everything below `path` on its file system; blocks. Follows no link and holds no more than one
// directory a level, at most 1000 levels deep: what lies deeper is not counted. DEADLINE_EXCEEDED after `limit`. What
// goes away meanwhile does not matter.
StatusOr<TreeUsage> MeasureTree(const std::string& path, std::chrono::nanoseconds limit);

// What the meter's child process does: a line "BYTES INODES" for each path on the standard output, "-" for one that
// cannot be measured. At the lowest priority.
int MeasureTreesMain(const std::vector<std::string>& paths);

// How long to leave the disk alone after a walk: twenty times as long as it took, at least five seconds, but no longer
// than a minute, or twice the walk if that is more.
std::chrono::nanoseconds RestAfterWalk(std::chrono::nanoseconds walk);

// Measures in a child process, one at a time, and rests after each (RestAfterWalk). Not thread safe.
class FileUsageMeter {
 public:
  // `command`: runs MeasureTreesMain when the paths are added to it.
  FileUsageMeter(EventLoop& loop, Children& children, std::vector<std::string> command);

  // These are the trees from now on; those that were not tried yet are walked through at once, and all of them when
  // it is time. `done` is called when each has been tried, or after half a second; perhaps before the call returns.
  void Update(const std::vector<std::string>& paths, std::function<void()> done);
  // Absent before the first walk that succeeded.
  [[nodiscard]] std::optional<v1::FileUsage> usage(const std::string& path) const;

 private:
  struct Figure {
    std::optional<TreeUsage> usage;
    EventLoop::Clock::time_point measured_at;
  };
  Status StartWalk(const std::vector<std::string>& paths);
  void WalkEnded(const std::vector<std::string>& paths);
  void AnswerWaiting();

  EventLoop& loop_;
  Children& children_;
  const std::vector<std::string> command_;
  std::map<std::string, Figure> figures_;  // by path
  UniqueFd output_;                        // of the walk under way
  bool walking_ = false;
  EventLoop::Clock::time_point walk_began_;
  EventLoop::Clock::time_point next_walk_;
  std::vector<std::function<void()>> waiting_;
  EventLoop::TimerId patience_;  // the end of their wait
};

}  // namespace husk::agent

#endif  // HUSK_AGENT_GUEST_FILE_USAGE_H_
