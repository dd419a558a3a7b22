// Undo for operations of several steps with outside effects.
#ifndef HUSK_AGENT_COMMON_ROLLBACK_H_
#define HUSK_AGENT_COMMON_ROLLBACK_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "agent/common/context.h"

namespace husk {

// Each step registers its undo right after it took effect. Unless Commit() is called, the destructor runs the undos
// in reverse order, each with a context that is detached from the request (cancelled requests must still clean up)
// and ends after `timeout_per_step`. An undo that fails is reported and the others still run. Not thread safe.
class Rollback {
 public:
  using Undo = std::function<Status(const Context&)>;
  using Report = std::function<void(const std::string& step, const Status& status)>;

  Rollback(const Context& context, Context::Clock::duration timeout_per_step, Report report)
      : context_(context), timeout_(timeout_per_step), report_(std::move(report)) {}
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;
  ~Rollback() { Run(); }

  void Add(std::string step, Undo undo) { steps_.push_back({std::move(step), std::move(undo)}); }
  // The operation succeeded: nothing will be undone.
  void Commit() { steps_.clear(); }
  // Undoes now.
  void Run() {
    while (!steps_.empty()) {
      Step step = std::move(steps_.back());
      steps_.pop_back();
      const Status status = step.undo(context_.Detached(timeout_));
      if (!status.ok() && report_) report_(step.name, status);
    }
  }

 private:
  struct Step {
    std::string name;
    Undo undo;
  };
  const Context context_;
  const Context::Clock::duration timeout_;
  const Report report_;
  std::vector<Step> steps_;
};

}  // namespace husk

#endif  // HUSK_AGENT_COMMON_ROLLBACK_H_
