// Launches that were recorded once and run any number of times: one by one, or as a graph where the device knows
// graphs.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "backend/cuda/device.h"

namespace sdar::cuda {

class LaunchList {
 public:
  explicit LaunchList(Device& device) : device_(device) {}
  ~LaunchList() { device_.release_graph(graph_); }
  LaunchList(const LaunchList&) = delete;
  LaunchList& operator=(const LaunchList&) = delete;

  template <Kernel kernel>
  void add(const ArgumentsOf<kernel>& arguments) {
    static_assert(std::is_trivially_copyable_v<ArgumentsOf<kernel>>);
    launches_.push_back({kernel, arguments_.size(), sizeof arguments});
    const auto* bytes = reinterpret_cast<const std::byte*>(&arguments);
    arguments_.insert(arguments_.end(), bytes, bytes + sizeof arguments);
  }

  /// The first time one by one, so that the device has loaded all kernels; captured the second time.
  void run() {
    if (graph_) return device_.replay(graph_);
    if (runs_++ == 0 || !device_.has_graphs()) return launch_all();
    device_.begin_capture();
    launch_all();
    graph_ = device_.end_capture();
    device_.replay(graph_);
  }
  size_t size() const { return launches_.size(); }

 private:
  struct Launch {
    Kernel kernel;
    size_t begin, bytes;
  };
  void launch_all() const {
    for (const Launch& l : launches_) device_.launch(l.kernel, arguments_.data() + l.begin, l.bytes);
  }

  Device& device_;
  std::vector<Launch> launches_;
  std::vector<std::byte> arguments_;
  SdarCudaGraph* graph_ = nullptr;
  int64_t runs_ = 0;
};

}  // namespace sdar::cuda
