// Devices: what is missing for a card is said exactly, and "auto" computes on the CPU then. Where a card can be used, it is.
import { existsSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { loadBinding } from "../lib/binding.js";
import { packageRoot } from "../lib/checkpoint.js";
import { Engine } from "../lib/index.js";
import { sdar } from "./sdar.js";

const binding = loadBinding();
const found = binding.probeCuda();
const built = existsSync(join(packageRoot, "build", "Release", "libsdar_cuda.so"));
const prompt = { prompt: "Count the atoms in Ca3(PO4)2", maxTokens: 8, ignoreEos: true };

t.test("auto runs on a card where one can be used, else on the CPU", async (t) => {
  await using engine = await Engine.load("sdar-nano", { device: "auto" });
  t.equal(engine.model.device, found.problem ? "cpu" : `cuda:${found.cards.findIndex((card) => !card.problem)}`);
  t.equal((await engine.generate(prompt).result()).usage.completionTokens, 8);
});

t.test("f32 weights, and an instruction set that was named, are the CPU's", async (t) => {
  await using f32 = await Engine.load("sdar-nano", { weights: "f32" });
  await using portable = await Engine.load("sdar-nano", { isa: "portable" });
  t.same([f32.model.device, portable.model.device], ["cpu", "cpu"]);
});

t.test("a card that is not there is refused with what is missing", async (t) => {
  if (found.problem) {
    const here = built
      ? /no NVIDIA (driver answers|GPU is visible)|driver knows CUDA/
      : /libsdar_cuda.*npm run build:native/;
    const missing = process.platform === "darwin" ? /no CUDA on macOS/ : here;
    t.match(found.problem, missing);
    for (const device of ["cuda", "cuda:0"] as const) {
      await t.rejects(Engine.load("sdar-nano", { device }), { code: "UNSUPPORTED_DEVICE", message: found.problem });
    }
  }
  const device = "cuda:99";
  await t.rejects(Engine.load("sdar-nano", { device }), {
    code: "UNSUPPORTED_DEVICE",
    message: /^device "cuda:99" is not available: ./,
  });
});

t.test("doctor says the same", async (t) => {
  const { stdout, status } = await sdar(["doctor"]);
  t.equal(status, 0, "the CPU suffices");
  if (found.problem) t.match(stdout, `cudaMissing      ${found.problem}`);
  const json = JSON.parse((await sdar(["doctor", "--json"])).stdout);
  t.match(json, { cuda: Array, cudaDriver: found.driver || "none", problems: [] });
  const none = { env: { ...process.env, SDAR_CUDA_LIBRARY: "/nowhere/libsdar_cuda.so" } };
  t.match(JSON.parse((await sdar(["doctor", "--json"], none)).stdout), {
    cuda: [],
    cudaLibrary: "none",
    cudaMissing: /\/nowhere\/libsdar_cuda\.so.*npm run build:native/,
    problems: [],
  });
  const refused = await sdar(["generate", "x", "--device", "cuda"], none);
  t.match(refused, { status: 1, stdout: "", stderr: /^sdar: device "cuda" is not available: .*\n$/ });
});
