#include "backend/cpu/matmul.h"

#include <algorithm>

namespace sdar::cpu {

Activations ActivationRows::reserve(const Kernels& kernels, WeightFormat format, int64_t k, int64_t rows) {
  const size_t element = kernels.activation_bytes[static_cast<int>(format)];
  const size_t bytes = static_cast<size_t>(padded_k(format, k)) * element;
  const size_t scales = static_cast<size_t>(groups_of(format, k) * rows);
  Activations a;
  a.stride = (bytes + 63) / 64 * 64 + 64;  // the extra line: rows a power of two apart share few cache sets
  a.data = data_.reserve(a.stride * static_cast<size_t>(rows));
  a.scales = scales_.reserve(scales);
  a.offsets = offsets_.reserve(scales);
  a.scale_stride = rows;
  return a;
}

Activations Matmul::rows_from(Activations a, int64_t row) {
  a.data += static_cast<size_t>(row) * a.stride;
  a.scales += row;
  a.offsets += row;
  return a;
}

void Matmul::prepare_rows(const RowSource& source, WeightFormat format, int64_t begin, int64_t end,
                          const Activations& a) const {
  PrepareJob job;
  job.format = format;
  job.norm = source.norm;
  job.eps = source.eps;
  job.k = source.cols;
  for (int64_t i = begin; i < end; i++) {
    job.x = source.x + (source.rows ? source.rows[i] : i) * source.cols;
    job.to = rows_from(a, i);
    kernels_.prepare(job);
  }
}

Activations Matmul::prepare(const RowSource& source, WeightFormat format, int64_t m, ActivationRows& rows) {
  const Activations a = rows.reserve(kernels_, format, source.cols, m);
  parallel_for(m, m * source.cols * 4, [&](int64_t i, int) { prepare_rows(source, format, i, i + 1, a); });
  return a;
}

bool Matmul::by_rows(const PackedWeight& weight, int64_t m) const {
  const int64_t bytes = weight.panels() * static_cast<int64_t>(weight.bytes_per_panel);
  return pool_.threads() > 1 && m >= kLeastRows * pool_.threads() && bytes <= kCachedBytes;
}

void Matmul::run(const RowSource& source, const PackedWeight& weight, int64_t m, Epilogue epilogue, float* out,
                 ActivationRows& rows) {
  const int64_t stride = weight.outputs();
  if (!by_rows(weight, m)) {
    return multiply(weight, prepare(source, weight.format, m, rows), m, epilogue, out, stride);
  }
  const Activations a = rows.reserve(kernels_, weight.format, source.cols, m);
  // The same rows for a thread in every GEMM of a step.
  const int64_t pass = kPassRows * pool_.threads(), parts = pool_.threads() * ((m + pass - 1) / pass);
  pool_.for_each(parts, [&](int64_t i, int) {
    const int64_t begin = m * i / parts, end = m * (i + 1) / parts;
    prepare_rows(source, weight.format, begin, end, a);
    for (int64_t panel = 0; panel < weight.panels(); panel++) {
      multiply_panel(weight, panel, rows_from(a, begin), end - begin, epilogue,
                     out + begin * stride + panel * weight.panel_columns(), stride);
    }
  });
}

void Matmul::multiply_panel(const PackedWeight& weight, int64_t panel, const Activations& a, int64_t m,
                            Epilogue epilogue, float* out, int64_t out_stride, int64_t count) const {
  const int64_t width = weight.panel_columns(), left = weight.outputs() - panel * width;
  PanelJob job;
  job.format = weight.format;
  job.panel = weight.panel(panel);
  job.panels = static_cast<int32_t>(count);
  job.k = padded_k(weight.format, weight.spec.cols);
  job.m = static_cast<int32_t>(m);
  job.a = a;
  job.epilogue = epilogue;
  job.out = out;
  job.out_stride = out_stride;
  job.columns = static_cast<int32_t>(left < count * width ? left : count * width);
  kernels_.panel(job);
}

void Matmul::multiply(const PackedWeight& weight, const Activations& a, int64_t m, Epilogue epilogue, float* out,
                      int64_t out_stride) {
  if (m == 0) return;
  const int64_t panels = weight.panels(), each = std::max<int64_t>(panels / (2 * pool_.threads()), 1);
  const int64_t fit = kernels_.panel_group_bytes / static_cast<int64_t>(weight.bytes_per_panel);
  const int64_t group = m > kStreamedRows ? std::clamp<int64_t>(fit, 1, each) : 1;
  const int64_t groups = (panels + group - 1) / group;
  // Many threads and few panels: the rows are split too, so that every thread gets several tasks of about the same
  // size.
  const int64_t parts = std::clamp<int64_t>(4 * pool_.threads() / groups, 1, std::max<int64_t>(m / kPartRows, 1));
  parallel_for(groups * parts, m * weight.spec.rows * weight.spec.cols, [&](int64_t i, int) {
    const int64_t first = i / parts * group, count = std::min(group, panels - first);
    const int64_t begin = m * (i % parts) / parts, end = m * (i % parts + 1) / parts;
    multiply_panel(weight, first, rows_from(a, begin), end - begin, epilogue,
                   out + begin * out_stride + first * weight.panel_columns(), out_stride, count);
  });
}

}  // namespace sdar::cpu
