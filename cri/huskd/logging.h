// The log: one line an event, on standard error.
#ifndef HUSK_CRI_HUSKD_LOGGING_H_
#define HUSK_CRI_HUSKD_LOGGING_H_

#include <spdlog/formatter.h>

#include <memory>
#include <string>

namespace husk::cri {

// Under journald (`journal`) a line begins with its priority as sd-daemon(3) has it and has no time, which the journal
// adds; elsewhere with time and level. Control characters become \xNN: what is logged may come from a guest.
std::unique_ptr<spdlog::formatter> NewLogFormatter(bool journal);

// Makes spdlog's default logger one to standard error. `level`: as in the configuration.
void StartLogging(const std::string& level);

}  // namespace husk::cri

#endif  // HUSK_CRI_HUSKD_LOGGING_H_
