// libsdar_cuda's side of the C interface: the CUDA runtime, linked statically, so that the library loads, and can say
// what is missing, where there is no driver.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/abi/abi.h"
#include "backend/cuda/abi/abi_guard.h"
#include "backend/cuda/kernels/kernels.h"
#include "util/error.h"

namespace sdar::cuda {

struct SdarCudaDevice {
  int index = 0;
  cudaStream_t stream = nullptr;
  cudaEvent_t events[2] = {nullptr, nullptr};
  std::vector<cudaEvent_t> timestamps;
  bool capturing = false;
};
struct SdarCudaGraph {
  cudaGraphExec_t graph = nullptr;
};

namespace {

void require(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // one that does not stick is forgotten
  throw Error(status == cudaErrorMemoryAllocation ? code::kOutOfMemory : code::kDeviceFailed,
              std::string(cudaGetErrorString(status)) + " (" + what + ")");
}

/// The same on a device: CUDA's calls are about the device that the thread has chosen.
template <class F>
int32_t on(const SdarCudaDevice* device, SdarCudaError* error, F body) {
  return guarded(error, [&] {
    require(cudaSetDevice(device->index), "cudaSetDevice");
    body();
  });
}

int32_t versions(int32_t* driver, int32_t* runtime, SdarCudaError* error) {
  return guarded(error, [&] {
    if (cudaDriverGetVersion(driver) != cudaSuccess) *driver = 0;
    require(cudaRuntimeGetVersion(runtime), "cudaRuntimeGetVersion");
  });
}

int32_t count(int32_t* devices, SdarCudaError* error) {
  return guarded(error, [&] {
    const cudaError_t status = cudaGetDeviceCount(devices);
    if (status != cudaErrorNoDevice) return require(status, "cudaGetDeviceCount");
    cudaGetLastError();
    *devices = 0;
  });
}

int32_t properties(int32_t index, SdarCudaProperties* to, SdarCudaError* error) {
  return guarded(error, [&] {
    cudaDeviceProp prop;
    require(cudaGetDeviceProperties(&prop, index), "cudaGetDeviceProperties");
    *to = {.name = {},
           .major = prop.major,
           .minor = prop.minor,
           .multiprocessors = prop.multiProcessorCount,
           .memory = prop.totalGlobalMem};
    std::snprintf(to->name, sizeof to->name, "%s", prop.name);
  });
}

void close(SdarCudaDevice* device) {
  if (!device) return;
  cudaSetDevice(device->index);
  for (cudaEvent_t event : device->events)
    if (event) cudaEventDestroy(event);
  for (cudaEvent_t timestamp : device->timestamps) cudaEventDestroy(timestamp);
  if (device->stream) cudaStreamDestroy(device->stream);
  delete device;
}

int32_t open(int32_t index, SdarCudaDevice** to, SdarCudaError* error) {
  return guarded(error, [&] {
    std::unique_ptr<SdarCudaDevice, decltype(&close)> device(new SdarCudaDevice{.index = index}, &close);
    require(cudaSetDevice(index), "cudaSetDevice");
    require(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), "cudaStreamCreate");
    // Who waits sleeps: a spinning thread would take a core from JavaScript.
    for (cudaEvent_t& event : device->events)
      require(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync), "cudaEventCreate");
    *to = device.release();
  });
}

int32_t memory(SdarCudaDevice* device, uint64_t* free, uint64_t* total, SdarCudaError* error) {
  return on(device, error, [&] {
    size_t f = 0, t = 0;
    require(cudaMemGetInfo(&f, &t), "cudaMemGetInfo");
    *free = f, *total = t;
  });
}

int32_t allocate(SdarCudaDevice* device, size_t bytes, const char* name, void** to, SdarCudaError* error) {
  return on(device, error, [&] { require(cudaMalloc(to, bytes), name); });
}
void release(SdarCudaDevice* device, void* p) {
  cudaSetDevice(device->index);
  cudaFree(p);
}
int32_t allocate_pinned(SdarCudaDevice* device, size_t bytes, void** to, SdarCudaError* error) {
  return on(device, error, [&] { require(cudaMallocHost(to, bytes), "pinned memory of the host"); });
}
void release_pinned(SdarCudaDevice* device, void* p) {
  cudaSetDevice(device->index);
  cudaFreeHost(p);
}

int32_t upload(SdarCudaDevice* device, void* to, const void* from, size_t bytes, SdarCudaError* error) {
  return on(device, error,
            [&] { require(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, device->stream), "upload"); });
}
int32_t download(SdarCudaDevice* device, void* to, const void* from, size_t bytes, SdarCudaError* error) {
  return on(device, error,
            [&] { require(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, device->stream), "download"); });
}
int32_t fill(SdarCudaDevice* device, void* to, int32_t byte, size_t bytes, SdarCudaError* error) {
  return on(device, error, [&] { require(cudaMemsetAsync(to, byte, bytes, device->stream), "fill"); });
}
int32_t record_event(SdarCudaDevice* device, int32_t event, SdarCudaError* error) {
  return on(device, error, [&] { require(cudaEventRecord(device->events[event], device->stream), "cudaEventRecord"); });
}
int32_t wait_event(SdarCudaDevice* device, int32_t event, SdarCudaError* error) {
  return on(device, error, [&] { require(cudaEventSynchronize(device->events[event]), "cudaEventSynchronize"); });
}

int32_t record_timestamp(SdarCudaDevice* device, int32_t index, SdarCudaError* error) {
  return on(device, error, [&] {
    while (device->timestamps.size() <= static_cast<size_t>(index)) {
      cudaEvent_t event = nullptr;
      require(cudaEventCreate(&event), "cudaEventCreate");
      device->timestamps.push_back(event);
    }
    // A captured event is one that the graph records when it runs; the flag is refused elsewhere.
    require(cudaEventRecordWithFlags(device->timestamps[static_cast<size_t>(index)], device->stream,
                                     device->capturing ? cudaEventRecordExternal : cudaEventRecordDefault),
            "cudaEventRecordWithFlags");
  });
}
int32_t elapsed(SdarCudaDevice* device, int32_t from, int32_t to, double* seconds, SdarCudaError* error) {
  return on(device, error, [&] {
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, device->timestamps.at(static_cast<size_t>(from)),
                                 device->timestamps.at(static_cast<size_t>(to))),
            "cudaEventElapsedTime");
    *seconds = 1e-3 * milliseconds;
  });
}

int32_t launch(SdarCudaDevice* device, int32_t kernel, const void* params, size_t bytes, SdarCudaError* error) {
  return on(device, error, [&] { launch_kernel(device->stream, kernel, params, bytes); });
}

int32_t begin_capture(SdarCudaDevice* device, SdarCudaError* error) {
  return on(device, error, [&] {
    require(cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    device->capturing = true;
  });
}
int32_t end_capture(SdarCudaDevice* device, SdarCudaGraph** to, SdarCudaError* error) {
  return on(device, error, [&] {
    device->capturing = false;
    cudaGraph_t captured = nullptr;
    require(cudaStreamEndCapture(device->stream, &captured), "cudaStreamEndCapture");
    auto graph = std::make_unique<SdarCudaGraph>();
    const cudaError_t status = cudaGraphInstantiate(&graph->graph, captured, 0);
    cudaGraphDestroy(captured);
    require(status, "cudaGraphInstantiate");
    *to = graph.release();
  });
}
int32_t replay(SdarCudaDevice* device, SdarCudaGraph* graph, SdarCudaError* error) {
  return on(device, error, [&] { require(cudaGraphLaunch(graph->graph, device->stream), "cudaGraphLaunch"); });
}
void release_graph(SdarCudaDevice* device, SdarCudaGraph* graph) {
  cudaSetDevice(device->index);
  cudaGraphExecDestroy(graph->graph);
  delete graph;
}

constexpr SdarCudaInterface kInterface{.version = kAbiVersion,
                                       .versions = versions,
                                       .count = count,
                                       .properties = properties,
                                       .open = open,
                                       .close = close,
                                       .memory = memory,
                                       .allocate = allocate,
                                       .release = release,
                                       .allocate_pinned = allocate_pinned,
                                       .release_pinned = release_pinned,
                                       .upload = upload,
                                       .download = download,
                                       .fill = fill,
                                       .record_event = record_event,
                                       .wait_event = wait_event,
                                       .record_timestamp = record_timestamp,
                                       .elapsed = elapsed,
                                       .launch = launch,
                                       .begin_capture = begin_capture,
                                       .end_capture = end_capture,
                                       .replay = replay,
                                       .release_graph = release_graph,
                                       .checks_bounds = 0};

}  // namespace

extern "C" __attribute__((visibility("default"))) const SdarCudaInterface* sdar_cuda_interface(uint32_t version) {
  return version == kAbiVersion ? &kInterface : nullptr;
}

}  // namespace sdar::cuda
