// Mutants of the CUDA kernels: every barrier, wait, commit, fence, guard and bound of native/backend/cuda/kernels is dropped in turn
// (a bound is also moved by one, a wait leaves one more group in flight, a mask of all lanes loses half), in each kernel
// that reaches it, and a test under the SIMT executor must fail. Prints each mutant with the test that caught it, and the count; --json FILE keeps the list.
//   npm run test:cuda-mutants [-- KERNEL …]
// Fails when a mutant survives, when a place is reached by no test, or when a kernel ran in fewer than three orders of fibers.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { isMain, orExit, root } from "./cmake.mjs";
import { buildTests } from "./native-tests.mjs";

const folder = "native/backend/cuda/kernels";
const slowest = 60e3; // ms: slower cases are not used
const orders = 3;
const changes = { bound: ["drop", "more", "less"], wait: ["drop", "more"], full_mask: ["less"] };

/** Runs a program; `failed` tells why, if it did. Whoever runs longer than `limit` ms hangs. */
function run(program, args, env, limit) {
  return new Promise((resolve) => {
    const start = Date.now();
    const child = spawn(program, args, {
      cwd: root,
      env: { ...process.env, SDAR_TEST_QUICK: "1", ...env },
      timeout: limit,
    });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (text += data));
    child.on("close", (status, signal) => {
      const ms = Date.now() - start;
      const why = /^# .*$/m.exec(text)?.[0].replace(/^# +/, "") ?? text.trim().split("\n").at(-1);
      const failed = signal ? `${ms >= limit ? "hangs" : signal}` : status !== 0 ? why : undefined;
      resolve({ ms, text, failed, hung: Boolean(signal) && ms >= limit });
    });
  });
}

/** Work on all cores. */
async function inParallel(items, work) {
  const rest = [...items];
  await Promise.all(
    Array.from({ length: availableParallelism() }, async () => {
      for (let item = rest.shift(); item; item = rest.shift()) await work(item);
    }),
  );
}

/** Each case of each test: its time, the sites that each kernel reaches in it, and the orders they run in. */
async function survey(build, tests) {
  const cases = [];
  for (const test of tests) {
    const { text } = await run(join(build, test), ["--list"], {}, slowest);
    for (const name of text.trim().split("\n")) cases.push({ test, name, program: join(build, test) });
  }
  const scratch = mkdtempSync(join(tmpdir(), "sdar-sites-"));
  await inParallel([...cases.entries()], async ([index, one]) => {
    const file = join(scratch, String(index));
    const { ms, failed, hung } = await run(one.program, [one.name], { SDAR_SITES: file }, slowest);
    if (hung) return console.log(`left out, as it takes more than ${slowest / 1000} s: ${one.test}: ${one.name}`);
    if (failed) throw new Error(`${one.test}: ${one.name} fails without any mutant: ${failed}`);
    one.ms = ms;
    one.lines = existsSync(file) ? readFileSync(file, "utf8").split("\n") : []; // no launch, no file
  });
  rmSync(scratch, { recursive: true });
  return cases.filter((one) => one.lines).sort((a, b) => a.ms - b.ms);
}

/** All mutants, each with the cases that reach it, fastest first. */
function mutantsOf(cases) {
  const sites = new Map();
  for (const one of cases) {
    for (const line of one.lines) {
      if (!line.startsWith("site ")) continue;
      if (!sites.has(line)) sites.set(line, []);
      sites.get(line).push(one);
    }
  }
  return [...sites].sort().flatMap(([line, reachedBy]) => {
    const [, kernel, kind, place] = line.split(" ");
    return (changes[kind] ?? ["drop"]).map((change) => ({ kernel, kind, place, change, reachedBy }));
  });
}

/** Calls in the sources, by line, that no kernel reached in any test. */
function unreached(mutants) {
  const functions = {
    in_range: "bound",
    guard: "guard",
    sync_block: "barrier",
    sync_warp: "warp_barrier",
    cp_async_wait: "wait",
    cp_async_commit: "commit",
    thread_fence: "fence",
    pdl_wait: "fence",
    warpgroup_commit: "commit",
    warpgroup_wait: "wait",
    warpgroup_wait_all: "wait",
    warpgroup_fence: "fence",
    fence_for_warpgroup_mma: "fence",
  };
  const call = new RegExp(`\\b(${Object.keys(functions).join("|")})(<[^>]*>)?\\(`, "g");
  const masked = /\b(shuffle|shuffle_xor|shuffle_up|shuffle_down|ballot|any|all)\(kFullMask\b/g;
  const missing = [];
  for (const file of readdirSync(join(root, folder)).filter((name) => /\.cuh?$/.test(name))) {
    if (["instructions.cuh", "warpgroup.cuh"].includes(file)) continue; // define them
    const lines = readFileSync(join(root, folder, file), "utf8").split("\n");
    for (const [index, line] of lines.entries()) {
      const wanted = {};
      for (const [, name] of line.replace(/\/\/.*/, "").matchAll(call)) {
        wanted[functions[name]] = (wanted[functions[name]] ?? 0) + 1;
      }
      const masks = [...line.matchAll(masked)].length;
      if (masks > 0) wanted.full_mask = masks;
      for (const [kind, count] of Object.entries(wanted)) {
        const here = mutants.filter((m) => m.kind === kind && m.place.startsWith(`${folder}/${file}:${index + 1}:`));
        if (new Set(here.map((m) => m.place)).size < count) missing.push(`${file}:${index + 1}: ${kind}`);
      }
    }
  }
  return missing;
}

/** Kernels that ran in too few orders. */
function fewOrders(cases) {
  const seeds = new Map();
  for (const line of cases.flatMap((one) => one.lines)) {
    const [word, kernel, seed] = line.split(" ");
    if (word === "order") seeds.set(kernel, (seeds.get(kernel) ?? new Set()).add(seed));
  }
  const mutated = new Set(mutantsOf(cases).map((m) => m.kernel));
  return [...seeds].filter(([kernel, set]) => mutated.has(kernel) && set.size < orders).map(([kernel]) => kernel);
}

async function kill(mutant) {
  const env = { SDAR_MUTANT: `${mutant.kernel} ${mutant.place} ${mutant.change}`, SDAR_TEST_STOP: "1" };
  for (const one of mutant.reachedBy) {
    const { failed } = await run(one.program, [one.name], env, 10e3 + 5 * one.ms);
    if (!failed) continue;
    mutant.caughtBy = one;
    mutant.how = /^uncaught: (.*)/.exec(failed.replace(/^.*?:0: /, ""))?.[1] ?? failed;
    return;
  }
}

const describe = (m) =>
  `${m.kernel.padEnd(16)} ${m.kind.padEnd(8)} ${m.change.padEnd(5)} ${m.place.slice(folder.length + 1)}`;

/** Returns the numbers of mutants caught and of faults. */
export async function mutateCuda(only = [], jsonFile = undefined) {
  const { build, names } = await buildTests(["cuda_*"]);
  const cases = await survey(
    build,
    names.filter((name) => !name.startsWith("cuda_host_")), // have kernels of their own
  );
  const all = mutantsOf(cases);
  const mutants = all.filter((m) => only.length === 0 || only.includes(m.kernel));
  console.log(`${cases.length} cases, ${mutants.length} mutants`);
  await inParallel(mutants, async (mutant) => {
    await kill(mutant);
    const by = mutant.caughtBy;
    console.log(`${by ? "caught   " : "SURVIVED "}${describe(mutant)}  ${by ? `${by.test}: ${mutant.how}` : ""}`);
  });
  const survived = mutants.filter((m) => !m.caughtBy);
  const faults = [
    ...survived.map((m) => `survived: ${describe(m)}; reached by ${m.reachedBy.map((one) => one.name).join("; ")}`),
    ...unreached(all).map((text) => `reached by no test: ${text}`),
    ...fewOrders(cases).map((kernel) => `fewer than ${orders} orders of fibers: ${kernel}`),
  ];
  for (const fault of faults) console.log(fault);
  const caught = mutants.length - survived.length;
  console.log(`${mutants.length} mutants, ${caught} caught, ${survived.length} survived`);
  if (jsonFile) {
    const list = mutants.map(({ kernel, kind, place, change, caughtBy, how }) => {
      return { kernel, kind, place, change, caughtBy: caughtBy && `${caughtBy.test}: ${caughtBy.name}`, how };
    });
    writeFileSync(jsonFile, `${JSON.stringify({ mutants: list, faults }, null, 1)}\n`);
  }
  return { passed: caught, failed: faults.length };
}

if (isMain(import.meta.url)) {
  const args = process.argv.slice(2);
  const at = args.indexOf("--json");
  const [, jsonFile] = at < 0 ? [] : args.splice(at, 2);
  const { failed } = await orExit(mutateCuda(args, jsonFile));
  process.exitCode = failed > 0 ? 1 : 0;
}
