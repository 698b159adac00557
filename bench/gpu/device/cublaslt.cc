// Names, values and layouts: cuBLAS Library User Guide, "Using the cublasLt API". Handles stay opaque.
#include "cublaslt.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "runtime.h"
#include "util/error.h"

namespace gpu_bench {
namespace {

constexpr int kCompute32F = 68;                    // CUBLAS_COMPUTE_32F
constexpr int kReal32F = 0, kReal16BF = 14;        // cudaDataType
constexpr int kTransposeA = 3, kMaxWorkspace = 1;  // attributes of a product, of a preference
constexpr int32_t kTransposed = 1;                 // CUBLAS_OP_T
constexpr size_t kWorkspace = 32 << 20;

struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {  // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

}  // namespace

struct CublasLt::State {
  void* library = nullptr;
  int (*create)(void**) = nullptr;
  int (*destroy)(void*) = nullptr;
  int (*product_create)(void**, int, int) = nullptr;
  int (*product_destroy)(void*) = nullptr;
  int (*product_set)(void*, int, const void*, size_t) = nullptr;
  int (*layout_create)(void**, int, uint64_t, uint64_t, int64_t) = nullptr;
  int (*layout_destroy)(void*) = nullptr;
  int (*preference_create)(void**) = nullptr;
  int (*preference_destroy)(void*) = nullptr;
  int (*preference_set)(void*, int, const void*, size_t) = nullptr;
  int (*heuristic)(void*, void*, void*, void*, void*, void*, void*, int, Heuristic*, int*) = nullptr;
  int (*matmul)(void*, void*, const void*, const void*, void*, const void*, void*, const void*, const void*, void*,
                void*, void*, const Algorithm*, void*, size_t, cudaStream_t) = nullptr;

  void* handle = nullptr;
  void* product = nullptr;
  void* layouts[3] = {};  // weight, x, y
  Heuristic chosen{};
  std::unique_ptr<DeviceArray<uint8_t>> workspace;

  bool load() {
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11", "libcublasLt.so"})
      if ((library = dlopen(name, RTLD_NOW | RTLD_LOCAL))) break;
    if (!library) return false;
    bool all = true;
    const auto get = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      all = all && function;
    };
    get(create, "cublasLtCreate");
    get(destroy, "cublasLtDestroy");
    get(product_create, "cublasLtMatmulDescCreate");
    get(product_destroy, "cublasLtMatmulDescDestroy");
    get(product_set, "cublasLtMatmulDescSetAttribute");
    get(layout_create, "cublasLtMatrixLayoutCreate");
    get(layout_destroy, "cublasLtMatrixLayoutDestroy");
    get(preference_create, "cublasLtMatmulPreferenceCreate");
    get(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    get(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    get(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    get(matmul, "cublasLtMatmul");
    return all && create(&handle) == 0;
  }
};

CublasLt::CublasLt() : state_(std::make_unique<State>()) {}

std::unique_ptr<CublasLt> CublasLt::open() {
  std::unique_ptr<CublasLt> lt(new CublasLt);
  if (!lt->state_->load()) return nullptr;
  lt->state_->workspace = std::make_unique<DeviceArray<uint8_t>>(kWorkspace);
  return lt;
}

CublasLt::~CublasLt() {
  forget();
  if (state_->handle) state_->destroy(state_->handle);
}

void CublasLt::forget() {
  State& s = *state_;
  if (s.product) s.product_destroy(s.product);
  for (void*& layout : s.layouts) {
    if (layout) s.layout_destroy(layout);
    layout = nullptr;
  }
  s.product = nullptr;
}

bool CublasLt::prepare(int64_t rows, int64_t cols, int64_t tokens, bool bf16_out) {
  forget();
  State& s = *state_;
  // In its columns, W is [cols, rows] and taken transposed, x is [cols, tokens], y [rows, tokens].
  const auto layout = [&](int i, int type, int64_t r, int64_t c) {
    return s.layout_create(&s.layouts[i], type, static_cast<uint64_t>(r), static_cast<uint64_t>(c), r) == 0;
  };
  if (s.product_create(&s.product, kCompute32F, kReal32F) != 0 ||
      s.product_set(s.product, kTransposeA, &kTransposed, sizeof kTransposed) != 0 ||
      !layout(0, kReal16BF, cols, rows) || !layout(1, kReal16BF, cols, tokens) ||
      !layout(2, bf16_out ? kReal16BF : kReal32F, rows, tokens))
    return false;
  void* preference = nullptr;
  if (s.preference_create(&preference) != 0) return false;
  int found = 0;
  const bool ok = s.preference_set(preference, kMaxWorkspace, &kWorkspace, sizeof kWorkspace) == 0 &&
                  s.heuristic(s.handle, s.product, s.layouts[0], s.layouts[1], s.layouts[2], s.layouts[2], preference,
                              1, &s.chosen, &found) == 0;
  s.preference_destroy(preference);
  return ok && found > 0 && s.chosen.status == 0;
}

void CublasLt::multiply(sdar::cuda::Stream stream, const void* weight, const void* x, void* y) {
  State& s = *state_;
  const float one = 1, zero = 0;
  const int status = s.matmul(s.handle, s.product, &one, weight, s.layouts[0], x, s.layouts[1], &zero, y, s.layouts[2],
                              y, s.layouts[2], &s.chosen.algorithm, s.workspace->get(), kWorkspace, stream);
  if (status != 0)
    throw sdar::Error(sdar::code::kInternal, "cuBLASLt: a product failed with status " + std::to_string(status));
}

}  // namespace gpu_bench
