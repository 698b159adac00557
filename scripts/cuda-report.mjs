// Compiles every CUDA kernel and holds the compiler's report against what bench/gpu/occupancy.json claims:
//   node scripts/cuda-report.mjs [--all] [--json FILE]
// Fails, naming kernel and architecture, on a spill, on local memory or an occupancy that is not claimed, or when an
// instruction that makes the kernel fast is missing from its PTX. A claim, by file and kernel: threads and bytes of shared
// memory of a block, blocks that an SM of sm_80, sm_86 and sm_90 holds at once, bytes of local memory if any.
// sm_89 and sm_120 have the limits of sm_86, sm_100 those of sm_90.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { has, root } from "./cmake.mjs";
import { allArchitectures } from "./cuda-library.mjs";

const all = process.argv.includes("--all");
const jsonAt = process.argv.indexOf("--json");
const jsonFile = jsonAt > 0 ? process.argv[jsonAt + 1] : join("build", "cuda-report.json");
const architectures = all ? allArchitectures : ["80", "90a"];
const folder = join(root, "native", "backend", "cuda", "kernels");
// The bits must not depend on what a compiler fuses.
const flags = ["-std=c++20", "-O3", "-fmad=false", `-I${join(root, "native")}`];

/** Per multiprocessor. Source: CUDA C++ Programming Guide, compute capabilities. */
const limits = {
  sm_80: { shared: 164 * 1024, threads: 2048, blocks: 32 },
  sm_86: { shared: 100 * 1024, threads: 1536, blocks: 16 },
  sm_90: { shared: 228 * 1024, threads: 2048, blocks: 32 },
};
const limitsOf = { 80: "sm_80", 86: "sm_86", 89: "sm_86", "90a": "sm_90", 100: "sm_90", 120: "sm_86" };

const tensorCores = [/mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16/, /cp\.async\.cg\.shared/];
const expected = {
  "gemm.cu": [...tensorCores, /ld\.shared\.v4/, /ld\.global\.v4/],
  "gemm_large.cu": [...tensorCores, /ld\.shared\.v4/, /ldmatrix\.sync\.aligned\.m8n8\.x4\.shared/],
  "gemm_warpgroup.cu": [/wgmma\.mma_async\.sync\.aligned\.m64n256k16/, /fence\.proxy\.async/, /cp\.async\.cg\.shared/],
  "gemm_grouped.cu": [...tensorCores, /ld\.shared\.v4/],
  "lm_head.cu": [...tensorCores, /ld\.shared\.v4/],
  "attention.cu": [
    ...tensorCores,
    /ldmatrix\.sync\.aligned\.m8n8\.x4\.shared/,
    /ldmatrix\.sync\.aligned\.m8n8\.x4\.trans/,
  ],
  "embed.cu": [/ld\.global\.nc\.L1::no_allocate\.L2::128B\.v4/, /st\.global\.v4/],
  "norm.cu": [/ld\.global\.v4/, /ld\.global\.nc\.v4/, /st\.global\.v4/],
  "lm_head_merge.cu": [/ld\.global\.nc\.v4/],
  "moe.cu": [/ld\.global\.v4/, /st\.global\.v4/],
};

/** Has code for sm_90a alone. */
const warpgroupsOnly = "gemm_warpgroup.cu";

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root });
    let text = "";
    child.stdout.on("data", (data) => (text += data));
    child.stderr.on("data", (data) => (text += data));
    child.on("error", reject);
    child.on("close", (code) =>
      code === 0 ? resolve(text) : reject(new Error(`${command} ${args.join(" ")}\n${text}`)),
    );
  });
}

/** gemm_kernel<(sdar::WeightFormat)1, 8> of the demangler as gemm<bf16, 8>. */
function shortName(demangled) {
  const formats = ["f32", "bf16", "int8", "int4"];
  const [, name, args = ""] = /(\w+)_kernel(<[^(]*(?:\([^)]*\)[^(]*)*>)?\(/.exec(demangled) ?? [undefined, demangled];
  return name + args.replace(/\([\w:]*WeightFormat\)(\d)/g, (_, n) => formats[n]).replace(/\(\w+\)(\d)/g, "$1");
}

const claims = JSON.parse(readFileSync(join(root, "bench", "gpu", "occupancy.json"), "utf8"));

/** Blocks that one multiprocessor holds at once. */
function blocksPerSm({ registers, threads, shared }, limit) {
  const perWarp = Math.ceil((registers * 32) / 256) * 256;
  return Math.min(
    Math.floor(65536 / (perWarp * (threads / 32))),
    Math.floor(limit.shared / (Math.ceil(shared / 128) * 128 + 1024)), // 1 KB of each block is the system's
    Math.floor(limit.threads / threads),
    limit.blocks,
  );
}

const wrong = [];
const results = [];

function checkInstructions(file, text) {
  // Vectors that fall apart: only denoise.cu has a byte to load.
  if (file !== "denoise.cu" && /ld\.(global|shared)[.\w:]*\.[us]8/.test(text))
    wrong.push(`${file}: loads of single bytes in its PTX`);
  for (const pattern of expected[file] ?? [])
    if (!pattern.test(text)) wrong.push(`${file}: no ${pattern.source} in its PTX`);
}

async function compile(file, architecture) {
  const arch = `sm_${architecture}`;
  const kept = join(scratch, `${file}-${arch}`); // the PTX stays there
  mkdirSync(kept);
  const how = [...flags, `-arch=${arch}`, "-Xptxas", "-v", "-cubin", "--keep", "--keep-dir", kept];
  const report = await run("nvcc", [...how, "-o", join(kept, "cubin"), join(folder, file)]);
  // What ptxas has to say when it makes warpgroup MMAs wait for one another.
  for (const [line] of report.matchAll(/^.*\(C75\d\d\).*$/gm)) wrong.push(`${arch} ${file}: ${line}`);
  if (["80", "120"].includes(architecture) || file === warpgroupsOnly)
    checkInstructions(file, readFileSync(join(kept, file.replace(/cu$/, "ptx")), "utf8"));
  const kernels = [
    ...report.matchAll(
      /Compiling entry function '(\S+)'[\s\S]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads[\s\S]*?Used (\d+) registers/g,
    ),
  ];
  if (kernels.length === 0) return;
  const names = (
    await run(
      "c++filt",
      kernels.map((match) => match[1]),
    )
  )
    .trimEnd()
    .split("\n")
    .map(shortName);
  const claimed = claims[file] ?? {};
  for (const [index, [, , local, stores, loads, registers]] of kernels.entries()) {
    const name = names[index];
    const claim = claimed[name];
    const result = { file, kernel: name, arch, registers: +registers, local: +local, spills: +stores + +loads };
    results.push(result);
    if (result.spills > 0) wrong.push(`${arch} ${name}: ${stores} bytes of spill stores, ${loads} of spill loads`);
    if (!claim) {
      wrong.push(`${file}: no claim for ${name} in bench/gpu/occupancy.json`);
      continue;
    }
    const limit = limitsOf[architecture];
    Object.assign(result, { threads: claim.threads, shared: claim.shared, claimed: claim.blocks[limit] });
    result.blocks = blocksPerSm(result, limits[limit]);
    if (result.local > (claim.local ?? 0))
      wrong.push(`${arch} ${name}: ${local} bytes of local memory, ${claim.local ?? 0} claimed`);
    if (result.blocks < result.claimed) {
      wrong.push(
        `${arch} ${name}: ${registers} registers and ${claim.shared} bytes allow ${result.blocks} blocks, ${result.claimed} claimed`,
      );
    }
  }
  for (const name of Object.keys(claimed))
    if (!names.includes(name)) wrong.push(`${file}: ${name} is claimed, which it does not have`);
}

if (!has("nvcc")) {
  console.log("skipped: nvcc was not found");
  process.exit(0);
}
const files = readdirSync(folder)
  .filter((name) => name.endsWith(".cu"))
  .sort();
for (const file of Object.keys(claims)) if (!files.includes(file)) wrong.push(`${file} is claimed, which is no kernel`);
const scratch = mkdtempSync(join(tmpdir(), "sdar-cuda-"));
const work = files.flatMap((file) =>
  architectures
    .filter((architecture) => architecture === "90a" || file !== warpgroupsOnly)
    .map((architecture) => () => compile(file, architecture)),
);
await Promise.all(
  Array.from({ length: Math.min(4, availableParallelism()) }, async () => {
    for (let job = work.shift(); job; job = work.shift()) await job().catch((error) => wrong.push(error.message));
  }),
);
rmSync(scratch, { recursive: true });
results.sort((a, b) => `${a.file}${a.kernel}${a.arch}`.localeCompare(`${b.file}${b.kernel}${b.arch}`));
for (const r of results) {
  const occupancy = r.threads ? `${r.shared} bytes shared, ${r.blocks} blocks of ${r.threads} threads` : "";
  console.log(
    `${r.arch.padEnd(8)}${r.kernel.padEnd(24)}${r.registers} registers, ${r.spills} spilled, ${r.local} local, ${occupancy}`,
  );
}
mkdirSync(dirname(resolve(root, jsonFile)), { recursive: true });
const nvcc = /release [\d.]+, V[\d.]+/.exec(await run("nvcc", ["--version"]))?.[0];
writeFileSync(
  resolve(root, jsonFile),
  `${JSON.stringify({ nvcc, flags: flags.slice(0, 3), architectures, wrong, kernels: results }, null, 1)}\n`,
);
console.log(`${results.length} kernels compiled, ${wrong.length} faults; ${jsonFile}`);
for (const text of [...new Set(wrong)].sort()) console.error(text);
process.exitCode = wrong.length > 0 ? 1 : 0;
