// Launches that were recorded once and run any number of times: one by one, or as a graph where the device knows
// graphs.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "backend/cuda/device.h"
#include "util/error.h"

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

  /// The first time one by one, so that the device has loaded all kernels; captured the second time. When the device
  /// has no memory left for a graph, it makes no more of any list.
  void run() {
    if (graph_ || (loaded_ && device_.has_graphs())) {
      try {
        if (!graph_) capture();
        return device_.replay(graph_);
      } catch (const Error& e) {
        if (e.code() != code::kOutOfMemory) throw;
        device_.give_up_graphs();
        device_.release_graph(std::exchange(graph_, nullptr));
      }
    }
    launch_all();
    loaded_ = true;
  }
  size_t size() const { return launches_.size(); }

 private:
  struct Launch {
    Kernel kernel;
    size_t begin, bytes;
  };
  void capture() {
    device_.begin_capture();
    try {
      launch_all();
    } catch (...) {
      device_.release_graph(device_.end_capture());  // or all that is asked for later would be captured
      throw;
    }
    graph_ = device_.end_capture();
  }
  void launch_all() const {
    for (const Launch& l : launches_) device_.launch(l.kernel, arguments_.data() + l.begin, l.bytes);
  }

  Device& device_;
  std::vector<Launch> launches_;
  std::vector<std::byte> arguments_;
  SdarCudaGraph* graph_ = nullptr;
  bool loaded_ = false;  ///< all kernels, by the device
};

}  // namespace sdar::cuda
