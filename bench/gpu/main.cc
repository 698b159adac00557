#include <cstdio>

#include "models.h"
int main() { std::printf("%s\n", gpu_bench::describe_models().dump(1).c_str()); }
