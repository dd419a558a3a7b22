// Figures that are not counted here but read when somebody asks.
#ifndef HUSK_CRI_METRICS_FAMILY_H_
#define HUSK_CRI_METRICS_FAMILY_H_

#include <prometheus/client_metric.h>
#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

namespace husk::cri {

inline prometheus::MetricFamily NewFamily(std::string name, std::string help, prometheus::MetricType type) {
  prometheus::MetricFamily family;
  family.name = std::move(name);
  family.help = std::move(help);
  family.type = type;
  return family;
}

// `label_name` empty: without a label.
inline void AddSample(prometheus::MetricFamily* family, const std::string& label_name, const std::string& label_value,
                      double value) {
  prometheus::ClientMetric& metric = family->metric.emplace_back();
  if (!label_name.empty()) metric.label.push_back({label_name, label_value});
  metric.counter.value = value;
  metric.gauge.value = value;
}

inline void AddOne(std::vector<prometheus::MetricFamily>* families, std::string name, std::string help,
                   prometheus::MetricType type, double value) {
  families->push_back(NewFamily(std::move(name), std::move(help), type));
  AddSample(&families->back(), "", "", value);
}

}  // namespace husk::cri

#endif  // HUSK_CRI_METRICS_FAMILY_H_
