// sdar doctor: what this machine has and whether the engine can run on it.
import { existsSync } from "node:fs";
import { availableParallelism, cpus, totalmem } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { loadBinding, type NativeCuda } from "../binding.js";
import { shippedModel, shippedModelPath } from "../checkpoint.js";
import { wrapError } from "../errors.js";

export function doctorCommand(): Command {
  return new Command("doctor")
    .description("Tells what this machine has and whether the engine can run on it; fails when it cannot")
    .option("--json", "print one JSON object")
    .addHelpText("after", "\nExamples:\n  sdar doctor\n  sdar doctor --json | jq .problems")
    .action(({ json }: { json?: boolean }) => {
      const found = probe();
      const { verdict, ...rest } = found;
      const width = Math.max(...Object.keys(rest).map((name) => name.length)) + 2;
      const lines = Object.entries(rest).map(
        ([name, value]) => `${name.padEnd(width)}${[value].flat().join(", ") || "none"}`,
      );
      process.stdout.write(json ? `${JSON.stringify(found, null, 2)}\n` : `${verdict}\n\n${lines.join("\n")}\n`);
      if (found.problems.length > 0) process.exitCode = 1;
    });
}

function probe() {
  const problems: string[] = [];
  let addon = "none";
  let instructionSets: string[] = [];
  let cuda: NativeCuda | undefined;
  try {
    const binding = loadBinding();
    addon = binding.file;
    instructionSets = binding.instructionSets();
    cuda = binding.probeCuda();
  } catch (error) {
    problems.push(wrapError(error).message);
  }
  const model = shippedModelPath();
  const present = existsSync(join(model, "config.json"));
  if (!present) problems.push(`the shipped model ${shippedModel} is missing: there is no ${model}`);
  return {
    verdict: verdictOf(problems, instructionSets, cuda),
    node: `${process.version}, N-API ${process.versions.napi}`,
    platform: `${process.platform}-${process.arch}`,
    processor: cpus()[0]?.model.trim() || "unknown",
    threads: availableParallelism(),
    memory: `${(totalmem() / 2 ** 30).toFixed(1)} GiB`,
    instructionSets,
    cuda: cuda?.cards.map((card, index) => describeCard(card, index)) ?? [],
    cudaDriver: cuda?.driver || "none",
    cudaLibrary: cuda?.library ? `${cuda.library} (CUDA ${cuda.runtime})` : "none",
    // Not among the problems: the CPU computes then.
    ...(cuda?.problem ? { cudaMissing: cuda.problem } : {}),
    addon,
    model: present ? model : "none",
    problems,
  };
}

/** What the rest means, in one line. */
function verdictOf([problem]: string[], [best]: string[], cuda: NativeCuda | undefined): string {
  if (problem !== undefined) return `The engine cannot run here: ${problem}`;
  const card = cuda?.cards.find((each) => each.problem === "");
  if (card) return `The engine runs here, on the GPU ${card.name} and on the CPU (${best}).`;
  const why = cuda?.cards[0]?.problem || cuda?.problem || "there is none";
  return `The engine runs here, on the CPU (${best}); not on a GPU: ${why}.`;
}

function describeCard({ name, capability, memory, problem }: NativeCuda["cards"][number], index: number): string {
  const what = name === "" ? "" : `${name}, ${(memory / 2 ** 30).toFixed(0)} GiB, compute capability ${capability}`;
  return `cuda:${index} ${what}${problem && `: cannot be used: ${problem}`}`;
}
