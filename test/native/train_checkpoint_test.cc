// Written checkpoints: read again by the loader and by the files' own description, in one file and in shards; what is
// refused; nothing half done.
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "check.h"
#include "checkpoint_files.h"
#include "model/safetensors.h"
#include "train/checkpoint.h"
#include "train_networks.h"
#include "util/half.h"

using namespace sdar;
using namespace sdar::train;
namespace fs = std::filesystem;

namespace {

nlohmann::ordered_json header_of(const std::string& path) {
  const std::string bytes = files::read(path);
  uint64_t length;
  std::memcpy(&length, bytes.data(), sizeof length);
  CHECK(length % 8 == 0);
  return nlohmann::ordered_json::parse(bytes.substr(8, length));
}

size_t entries(const std::string& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

}  // namespace

TEST("a checkpoint holds the weights, in f32 or rounded to bf16, in one file or in shards") {
  const files::TempFolder folder;
  for (const bool tied : {false, true}) {
    for (const int32_t experts : {0, 3}) {
      const ModelConfig config = config_of(tied, experts);
      const Layout layout(config);
      const std::vector<float> weights = weights_of(layout);
      for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const int64_t shard : {int64_t{1} << 30, int64_t{6000}}) {
          const std::string path = folder / ("a/b" + std::to_string(entries(folder.path)));
          const WrittenCheckpoint written = write_checkpoint(
              path, layout, weights, {.dtype = dtype, .shard_bytes = shard, .texts = {{"config.json", "{}"}}});
          CHECK(written.parameters == layout.size());
          CHECK(written.bytes == layout.size() * static_cast<int64_t>(bytes_of(dtype)));
          CHECK((written.files > 1) == (shard == 6000));
          CHECK(entries(path) == static_cast<size_t>(written.files) + (written.files > 1 ? 2 : 1));
          CHECK(files::read(path + "/config.json") == "{}");
          std::vector<float> expected = weights;
          if (dtype == DType::bf16)
            for (float& w : expected) w = round_to_bf16(w);
          CHECK(read_parameters(path, config, layout) == expected);
          const Safetensors read(path);
          CHECK(read.tensors().size() == layout.parameters().size());
          CHECK(read.tensors().contains("lm_head.weight") != tied);
          fs::remove_all(folder / "a");
        }
      }
    }
  }
  CHECK(entries(folder.path) == 0);
}

TEST("files are named, ordered and described as Hugging Face's tools do") {
  const files::TempFolder folder;
  const Layout layout(config_of(false, 0));
  const std::vector<float> weights = weights_of(layout);
  write_checkpoint(folder / "one", layout, weights);
  const auto header = header_of(folder / "one/model.safetensors");
  CHECK(header["__metadata__"] == nlohmann::json({{"format", "pt"}}));
  std::vector<std::string> names;
  for (const auto& [name, tensor] : header.items())
    if (name != "__metadata__") names.push_back(name);
  CHECK(names.size() == layout.parameters().size() && std::is_sorted(names.begin(), names.end()));
  CHECK(header["model.norm.weight"]["shape"] == nlohmann::json({20}));
  CHECK(header["model.layers.1.mlp.up_proj.weight"]["shape"] == nlohmann::json({28, 20}));
  CHECK(header["lm_head.weight"]["dtype"] == "BF16" && header["lm_head.weight"]["data_offsets"][0] == 0);

  const WrittenCheckpoint many = write_checkpoint(folder / "many", layout, weights, {.shard_bytes = 5000});
  const auto index = nlohmann::ordered_json::parse(files::read(folder / "many/model.safetensors.index.json"));
  CHECK(index["metadata"]["total_size"] == 2 * layout.size());
  CHECK(index["weight_map"].size() == layout.parameters().size());
  for (const auto& [name, file] : index["weight_map"].items())
    CHECK(header_of(folder / ("many/" + file.get<std::string>())).contains(name));
  char last[64];
  std::snprintf(last, sizeof last, "many/model-%05d-of-%05d.safetensors", many.files, many.files);
  CHECK(fs::exists(folder / last));
}

TEST("nothing is written over, and nothing half done stays") {
  const files::TempFolder folder;
  const Layout layout(config_of(true, 0));
  const std::vector<float> weights = weights_of(layout);
  write_checkpoint(folder / "there/", layout, weights);
  const std::string before = files::read(folder / "there/model.safetensors");
  const std::vector<float> other(weights.size(), 1.0f);
  CHECK_THROWS("INVALID_OPTION", "there: exists", write_checkpoint(folder / "there", layout, other));
  CHECK(files::read(folder / "there/model.safetensors") == before);
  fs::create_directory(folder / "plain");
  CHECK(fs::status(folder / "there").permissions() == fs::status(folder / "plain").permissions());
  fs::remove(folder / "plain");
  int asked = 0;
  WeightHooks stop;
  stop.cancelled = [&] { return ++asked > 5; };
  CHECK_THROWS("ABORTED", "cancelled", write_checkpoint(folder / "a/b", layout, weights, {}, stop));
  CHECK_THROWS("FILE_UNWRITABLE", "cannot be written",
               write_checkpoint(folder / "there/model.safetensors/x", layout, weights));
  CHECK_THROWS("INVALID_OPTION", "bf16, f32", write_checkpoint(folder / "x", layout, weights, {.dtype = DType::f16}));
  CHECK_THROWS("INVALID_OPTION", "text \"../x\"",
               write_checkpoint(folder / "x", layout, weights, {.texts = {{"../x", ""}}}));
  CHECK_THROWS("INVALID_OPTION", "text \"model.safetensors\"",
               write_checkpoint(folder / "x", layout, weights, {.texts = {{"model.safetensors", ""}}}));
  CHECK_THROWS("INVALID_OPTION", "weights: 3 of", write_checkpoint(folder / "x", layout, std::span(weights).first(3)));
  CHECK(entries(folder.path) == 1);
}

int main(int argc, char** argv) { return check::run(argc, argv); }
