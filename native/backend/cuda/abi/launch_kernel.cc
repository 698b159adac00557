// From a kernel's number to its launch; linked with the kernels, on a card or under the host executor.
#include <cstring>
#include <string>

#include "backend/cuda/kernels/kernels.h"
#include "util/error.h"

namespace sdar::cuda {
namespace {

template <Kernel kernel, class F>
void run(const void* bytes_of_arguments, size_t bytes, F launch) {
  ArgumentsOf<kernel> arguments;
  if (bytes != sizeof arguments) {
    throw Error(code::kInternal, "kernel " + std::to_string(static_cast<int>(kernel)) + " takes " +
                                     std::to_string(sizeof arguments) + " bytes of arguments, not " +
                                     std::to_string(bytes));
  }
  std::memcpy(&arguments, bytes_of_arguments, bytes);
  launch(arguments);
}

}  // namespace

void launch_kernel(Stream stream, int32_t kernel, const void* arguments, size_t bytes) {
  switch (static_cast<Kernel>(kernel)) {
    case Kernel::embed:
      return run<Kernel::embed>(arguments, bytes, [&](const auto& a) { embed(stream, a); });
    case Kernel::rms_norm:
      return run<Kernel::rms_norm>(arguments, bytes, [&](const auto& a) { rms_norm(stream, a); });
    case Kernel::gemm:
      return run<Kernel::gemm>(arguments, bytes, [&](const auto& a) { gemm(stream, a); });
    case Kernel::gemm_large:
      return run<Kernel::gemm_large>(arguments, bytes, [&](const auto& a) { gemm_large(stream, a); });
    case Kernel::gemm_warpgroup:
      return run<Kernel::gemm_warpgroup>(arguments, bytes, [&](const auto& a) { gemm_warpgroup(stream, a); });
    case Kernel::rope:
      return run<Kernel::rope>(arguments, bytes, [&](const auto& a) { rope(stream, a); });
    case Kernel::attention_narrow:
      return run<Kernel::attention_narrow>(arguments, bytes, [&](const auto& a) { attention_narrow(stream, a); });
    case Kernel::attention_wide:
      return run<Kernel::attention_wide>(arguments, bytes, [&](const auto& a) { attention_wide(stream, a); });
    case Kernel::attention_merge:
      return run<Kernel::attention_merge>(arguments, bytes, [&](const auto& a) { attention_merge(stream, a); });
    case Kernel::head:
      return run<Kernel::head>(arguments, bytes, [&](const auto& a) { head(stream, a); });
    case Kernel::head_merge:
      return run<Kernel::head_merge>(arguments, bytes,
                                     [&](const auto& a) { head_merge(stream, a.vocabulary, a.lists, a.buffers); });
    case Kernel::sample:
      return run<Kernel::sample>(arguments, bytes,
                                 [&](const auto& a) { sample(stream, a.vocabulary, a.lists, a.buffers); });
    case Kernel::gather_rows:
      return run<Kernel::gather_rows>(arguments, bytes, [&](const auto& a) { gather_rows(stream, a); });
    case Kernel::select_unmask:
      return run<Kernel::select_unmask>(arguments, bytes,
                                        [&](const auto& a) { select_unmask(stream, a.tables, a.results); });
    case Kernel::route:
      return run<Kernel::route>(arguments, bytes, [&](const auto& a) { route(stream, a); });
    case Kernel::group:
      return run<Kernel::group>(arguments, bytes, [&](const auto& a) { group(stream, a); });
    case Kernel::gemm_grouped:
      return run<Kernel::gemm_grouped>(arguments, bytes, [&](const auto& a) { gemm_grouped(stream, a); });
    case Kernel::combine:
      return run<Kernel::combine>(arguments, bytes, [&](const auto& a) { combine(stream, a); });
  }
  throw Error(code::kInternal, "there is no kernel " + std::to_string(kernel));
}

}  // namespace sdar::cuda
