// For implementations of the interface of abi.h: no exception crosses it.
#pragma once
#include <cstdint>
#include <cstdio>
#include <exception>

#include "backend/cuda/abi/abi.h"
#include "util/error.h"

namespace sdar::cuda {

/// Runs `body`; what it throws becomes the error.
template <class F>
int32_t guarded(SdarCudaError* error, F body) {
  const auto tell = [&](const char* code, const char* message) {
    std::snprintf(error->code, sizeof error->code, "%s", code);
    std::snprintf(error->message, sizeof error->message, "%s", message);
    return 1;
  };
  try {
    body();
    return 0;
  } catch (const Error& e) {
    return tell(e.code().c_str(), e.what());
  } catch (const std::exception& e) {
    return tell(code::kInternal, e.what());
  } catch (...) {
    return tell(code::kInternal, "an exception of unknown kind");
  }
}

}  // namespace sdar::cuda
