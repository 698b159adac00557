// Compiled once for each instruction set, which SDAR_ISA names (cmake/isa.cmake).
#include "backend/cpu/kernels/table.h"

#define SDAR_JOIN_(a, b) a##b
#define SDAR_JOIN(a, b) SDAR_JOIN_(a, b)
#define SDAR_TEXT_(a) #a
#define SDAR_TEXT(a) SDAR_TEXT_(a)

namespace sdar::cpu {

extern const Kernels SDAR_JOIN(kKernels_, SDAR_ISA);
const Kernels SDAR_JOIN(kKernels_, SDAR_ISA) = make_table(SDAR_TEXT(SDAR_ISA));

}  // namespace sdar::cpu
