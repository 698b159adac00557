#include "train/checkpoint.h"

#include <filesystem>

#include "util/error.h"
#include "util/output_file.h"

namespace sdar::train {
namespace {

namespace fs = std::filesystem;

class LayoutSource final : public TensorSource {
 public:
  LayoutSource(const Layout& layout, const float* weights) : layout_(layout), weights_(weights) {}
  int64_t bytes(const TensorSpec& tensor) const override { return 4 * tensor.elements(); }
  SourceTensor open(const TensorSpec& tensor) override {
    return {.data = reinterpret_cast<const std::byte*>(weights_ + layout_.offset(tensor.name)),
            .dtype = DType::f32,
            .rows = tensor.rows,
            .cols = tensor.cols};
  }
  void close(const TensorSpec&) override {}

 private:
  const Layout& layout_;
  const float* weights_;
};

class MergedSource final : public TensorSource {
 public:
  MergedSource(const Adaptation& adaptation, Compute& compute, const float* trained)
      : adaptation_(adaptation), compute_(compute), trained_(trained) {}
  int64_t bytes(const TensorSpec& tensor) const override { return 4 * tensor.elements(); }
  SourceTensor open(const TensorSpec& t) override {
    values_.resize(static_cast<size_t>(t.elements()));
    adaptation_.merge(compute_, {t.name, t.rows, t.cols, t.vector}, trained_, values_.data());
    return {.data = reinterpret_cast<const std::byte*>(values_.data()),
            .dtype = DType::f32,
            .rows = t.rows,
            .cols = t.cols};
  }
  void close(const TensorSpec&) override {}

 private:
  const Adaptation& adaptation_;
  Compute& compute_;
  const float* trained_;
  std::vector<float> values_;
};

void check_size(size_t given, const Layout& layout) {
  if (static_cast<int64_t>(given) == layout.size()) return;
  throw Error(code::kInvalidOption, "weights: " + std::to_string(given) + " of " + std::to_string(layout.size()));
}

void check_name(const std::string& name) {
  if (name.empty() || name.starts_with(".") || name.starts_with("model.") || name.starts_with("model-") ||
      name.find('/') != name.npos)
    throw Error(code::kInvalidOption,
                "text \"" + name + "\": allowed: the name of a file of the folder, not of tensors");
}

WrittenCheckpoint write(const std::string& folder, const Layout& layout, TensorSource& source,
                        const CheckpointOptions& options, const WeightHooks& hooks) {
  for (const CheckpointText& file : options.texts) check_name(file.name);
  fs::path target = fs::absolute(folder).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // a slash at the end
  std::vector<TensorSpec> tensors;
  for (const Parameter& p : layout.parameters()) tensors.push_back({p.name, p.rows, p.cols, p.vector});
  try {
    if (fs::exists(fs::symlink_status(target)))
      throw Error(code::kInvalidOption, target.string() + ": exists; allowed: a folder that does not");
    const FolderBeside beside(target);
    const fs::path made = beside.path() / "checkpoint";  // with the permissions of any new folder
    fs::create_directory(made);
    const WrittenCheckpoint written =
        write_tensors(made.string(), tensors, source,
                      {.dtype = options.dtype, .shard_bytes = options.shard_bytes, .sync = true}, hooks);
    for (const CheckpointText& file : options.texts) write_text(made / file.name, file.text, true);
    sync_folder(made.string());
    fs::rename(made, target);
    sync_folder(target.parent_path().string());
    return written;
  } catch (const fs::filesystem_error& e) {
    unwritable(target.string(), e.code().message());
  }
}

}  // namespace

WrittenCheckpoint write_checkpoint(const std::string& folder, const Layout& layout, std::span<const float> weights,
                                   const CheckpointOptions& options, const WeightHooks& hooks) {
  check_size(weights.size(), layout);
  LayoutSource source(layout, weights.data());
  return write(folder, layout, source, options, hooks);
}

WrittenCheckpoint write_checkpoint(const std::string& folder, const Adaptation& adaptation, Compute& compute,
                                   std::span<const float> trained, const CheckpointOptions& options,
                                   const WeightHooks& hooks) {
  check_size(trained.size(), adaptation.layout());
  MergedSource source(adaptation, compute, trained.data());
  return write(folder, adaptation.full(), source, options, hooks);
}

}  // namespace sdar::train
