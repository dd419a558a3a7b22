// Lanes, pods, containers and events, read at each scrape.
#ifndef HUSK_CRI_METRICS_SAMPLED_FIGURES_H_
#define HUSK_CRI_METRICS_SAMPLED_FIGURES_H_

#include <prometheus/metric_family.h>

#include <vector>

#include "cri/metrics/metrics.h"

namespace husk::cri {

// Of each source that is there.
void AddSampledFigures(const MetricSources& sources, std::vector<prometheus::MetricFamily>* families);

}  // namespace husk::cri

#endif  // HUSK_CRI_METRICS_SAMPLED_FIGURES_H_
