// What each program here begins with.
#pragma once
#include <ggml-backend.h>
#include <llama.h>

#include <cstdio>

/** llama.cpp with the backends of a folder; errors only: loading prints pages. */
inline void start_llama(const char* library_folder) {
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
  ggml_backend_load_all_from_path(library_folder);
  llama_backend_init();
}
