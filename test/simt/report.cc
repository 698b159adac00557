#include "simt/report.h"

#include <algorithm>

#include "simt/sites.h"
#include "util/error.h"

namespace sdar::cuda_host {
namespace {

LaunchReport report;
std::vector<SiteTraffic> traffic;
std::vector<uint32_t> touched;
uint64_t launch_number = 0;

}  // namespace

const LaunchReport& last_launch() { return report; }
Counters& counters() { return report; }
std::vector<SiteTraffic>& site_traffic() { return traffic; }

Traffic& traffic_of(uint32_t allocation) {
  Allocation& a = arena().allocations[allocation];
  if (a.traffic_launch != launch_number) {
    a.traffic_launch = launch_number;
    a.traffic = {};
    touched.push_back(allocation);
  }
  return a.traffic;
}

void begin_report(const std::string& kernel, int64_t blocks, int threads, int shared_bytes) {
  report = {};
  report.kernel = kernel;
  report.blocks = blocks;
  report.threads = threads;
  report.shared_bytes = shared_bytes;
  launch_number++;
  touched.clear();
  std::fill(traffic.begin(), traffic.end(), SiteTraffic{});
}

void end_report() {
  for (const uint32_t index : touched) {
    const Allocation& a = arena().allocations[index];
    report.tensors.push_back({a.traffic, a.name});
    report.loaded += a.traffic.loaded;
    report.loaded_once += a.traffic.loaded_once;
    report.stored += a.traffic.stored;
  }
  for (size_t key = 0; key < traffic.size(); key++)
    if (traffic[key].accesses)
      report.places.push_back({traffic[key], site_number(static_cast<uint16_t>(key / 2)).place, key % 2 == 1});
}

const LaunchReport::Tensor& LaunchReport::tensor(const std::string& name) const {
  for (const Tensor& t : tensors)
    if (t.name == name) return t;
  throw Error("LAUNCH", kernel + " did not touch '" + name + "'");
}

int64_t LaunchReport::bank_conflicts(const std::string& place) const {
  int64_t more = 0;
  for (const Place& p : places)
    if (p.shared && p.place.find(place) != std::string::npos) more += p.units - p.least;
  return more;
}

}  // namespace sdar::cuda_host
