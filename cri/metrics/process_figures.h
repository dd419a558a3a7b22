// What every program with a Prometheus endpoint tells of its own process.
#ifndef HUSK_CRI_METRICS_PROCESS_FIGURES_H_
#define HUSK_CRI_METRICS_PROCESS_FIGURES_H_

#include <prometheus/metric_family.h>

#include <vector>

namespace husk::cri {

// From /proc/self; what cannot be read is left out.
void AddProcessFigures(std::vector<prometheus::MetricFamily>* families);

}  // namespace husk::cri

#endif  // HUSK_CRI_METRICS_PROCESS_FIGURES_H_
