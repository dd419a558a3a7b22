#include "cri/huskd/logging.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <string_view>

namespace husk::cri {

namespace {

// "<6>": syslog's priority.
class PriorityFlag : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm& /*time*/, spdlog::memory_buf_t& out) override {
    char digit = '6';
    if (message.level >= spdlog::level::critical) {
      digit = '2';
    } else if (message.level == spdlog::level::err) {
      digit = '3';
    } else if (message.level == spdlog::level::warn) {
      digit = '4';
    } else if (message.level <= spdlog::level::debug) {
      digit = '7';
    }
    const char text[] = {'<', digit, '>'};
    out.append(text, text + sizeof text);
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<PriorityFlag>();
  }
};

class EscapedMessageFlag : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm& /*time*/, spdlog::memory_buf_t& out) override {
    constexpr std::string_view kDigits = "0123456789abcdef";
    for (const char c : message.payload) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= 0x20 && byte != 0x7f) {
        out.push_back(c);
        continue;
      }
      const char escaped[] = {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 0xf]};
      out.append(escaped, escaped + sizeof escaped);
    }
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<EscapedMessageFlag>();
  }
};

}  // namespace

std::unique_ptr<spdlog::formatter> NewLogFormatter(bool journal) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<PriorityFlag>('*').add_flag<EscapedMessageFlag>('?');
  formatter->set_pattern(journal ? "%*%?" : "%Y-%m-%dT%H:%M:%S.%e%z %l %?");
  return formatter;
}

void StartLogging(const std::string& level) {
  auto logger = spdlog::stderr_logger_mt("huskd");
  // Read before any thread exists.
  logger->set_formatter(NewLogFormatter(std::getenv("JOURNAL_STREAM") != nullptr));  // NOLINT(concurrency-mt-unsafe)
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace husk::cri
