# CUDA kernels as C++, for tests on a machine without a GPU: test/simt executes them. Tests named cuda_* link
# both libraries.
include(CheckCXXCompilerFlag)
file(GLOB SDAR_CUDA_HOST CONFIGURE_DEPENDS test/simt/*.cc)
list(FILTER SDAR_CUDA_HOST EXCLUDE REGEX "/device\\.cc$")
add_library(cuda_host STATIC ${SDAR_CUDA_HOST})
target_compile_definitions(cuda_host PUBLIC SDAR_CUDA_HOST SDAR_SOURCE_ROOT="${CMAKE_SOURCE_DIR}/")
target_include_directories(cuda_host PUBLIC native test test/native)
target_link_libraries(cuda_host PUBLIC sdar_bench sdar_core)

file(GLOB SDAR_CUDA_KERNELS CONFIGURE_DEPENDS native/backend/cuda/kernels/*.cu)
add_library(cuda_host_kernels STATIC ${SDAR_CUDA_KERNELS} native/backend/cuda/abi/launch_kernel.cc
            test/simt/device.cc)
set_source_files_properties(${SDAR_CUDA_KERNELS} PROPERTIES LANGUAGE CXX)
target_link_libraries(cuda_host_kernels PUBLIC cuda_host)
# Registers hold anything at first.
check_cxx_compiler_flag(-ftrivial-auto-var-init=pattern SDAR_CAN_POISON)
if(SDAR_CAN_POISON)
  target_compile_options(cuda_host_kernels PRIVATE -ftrivial-auto-var-init=pattern)
endif()
