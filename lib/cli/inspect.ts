// sdar inspect: what a checkpoint is and takes, without reading its weights.
import { Command } from "commander";
import { findCheckpoint, shippedModel } from "../checkpoint.js";
import { type Inspection, inspectCheckpoint } from "../inspect.js";
import type { StoredTensor } from "../safetensors.js";
import { printable, sizeOf } from "./terminal.js";

interface Flags {
  tensors?: boolean;
  json?: boolean;
}

export function inspectCommand(): Command {
  return new Command("inspect")
    .description("Tells what a checkpoint is, what it takes, and what of it fits into this machine's memory")
    .argument("[model]", "checkpoint folder, hub id in the local cache, or the shipped model", shippedModel)
    .option("--tensors", "list every tensor, not groups of them")
    .option("--json", "print one JSON object, with all tensors")
    .addHelpText(
      "after",
      `
Only headers of the weights are read, so that a large model takes no longer than a small one.

Examples:
  sdar inspect
  sdar inspect JetLM/SDAR-1.7B-Chat
  sdar inspect ./my-model --tensors
  sdar inspect ./my-model --json | jq .weightBytes`,
    )
    .action((model: string, { tensors, json }: Flags) => {
      const found = inspectCheckpoint(findCheckpoint(model));
      process.stdout.write(json ? `${JSON.stringify(found, null, 2)}\n` : describe(found, tensors === true));
    });
}

function describe(found: Inspection, all: boolean): string {
  const { folder, files, tensors, passedOver, memory } = found;
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const sections = [
    printable(folder),
    section("Model", modelRows(found)),
    section("Text", textRows(found)),
    `Tensors: ${tensors.length} in ${files.length} file(s), ${sizeOf(bytes)}\n${tensorTable(tensors, all)}`,
    ...(passedOver.length > 0 ? [`Not part of the model: ${passedOver.slice(0, 8).map(printable).join(", ")}`] : []),
    `Cache: ${Object.entries(found.kvBytesPerToken)
      .map(([format, size]) => `${sizeOf(size)} a token as ${format}`)
      .join(", ")}`,
    `Fits here: ${sizeOf(memory.available)} of memory are free, this process may use ${sizeOf(memory.limit)}\n${fitTable(found)}`,
  ];
  return `${sections.join("\n\n")}\n`;
}

function modelRows({ shape, decoding, parameters }: Inspection): [string, string][] {
  const { experts } = shape;
  const mlp = experts
    ? `${experts.count} experts of ${experts.intermediate}, ${experts.perToken} for each token, in ${experts.layers.filter(Boolean).length} layers`
    : `${shape.intermediate}`;
  return [
    ["type", `${shape.modelType}, ${decoding === "autoregressive" ? "writes a token at a time" : "denoises blocks"}`],
    ["parameters", `${parameters.toLocaleString("en")}${shape.tied ? ", the lm_head is the embedding" : ""}`],
    ["layers", `${shape.layers} of ${shape.hidden}`],
    ["attention", `${shape.heads} heads of ${shape.headDim}, ${shape.kvHeads} of keys and values`],
    ["mlp", mlp],
    ["vocabulary", `${shape.vocabulary}`],
    ["context", `${shape.context}`],
    ...(shape.blockSize ? [["block length", `${shape.blockSize}`] as [string, string]] : []),
    ["stored as", shape.f32 ? "f32" : "16 bits"],
  ];
}

function textRows({ tokenizer, template }: Inspection): [string, string][] {
  const special = Object.entries(tokenizer?.special ?? {}).map(([part, { name, id }]): [string, string] => [
    part.replace(/_token$/, " token"),
    `${name}${id === undefined ? ", which is no added token" : `, id ${id}`}`,
  ]);
  const { characters, tools, problem } = template ?? {};
  return [
    ["tokenizer", tokenizer ? `${tokenizer.type}, ${tokenizer.vocabulary} entries, ${tokenizer.added} added` : "none"],
    ...special,
    ["answers end at", tokenizer?.endTokenIds.map((id) => `id ${id}`).join(", ") || "no token"],
    ["chat template", template ? `${characters} characters${tools ? ", knows tools" : ""}` : "none: prompts alone"],
    ...(problem ? [["problem", problem] as [string, string]] : []),
  ];
}

function section(title: string, rows: readonly [string, string][]): string {
  const width = Math.max(...rows.map(([name]) => name.length)) + 2;
  return [title, ...rows.map(([name, value]) => `  ${name.padEnd(width)}${printable(value)}`)].join("\n");
}

/** Those that differ only in the number of their layer or expert on one line. */
function tensorTable(tensors: readonly StoredTensor[], all: boolean): string {
  const groups = new Map<string, { name: string; what: string; count: number; bytes: number }>();
  for (const { name, dtype, shape, bytes } of tensors) {
    const what = `${dtype} [${shape.join(", ")}]`;
    const short = all ? name : name.replace(/\.\d+(?=\.)/g, ".*");
    const group = groups.get(`${short} ${what}`) ?? { name: short, what, count: 0, bytes: 0 };
    groups.set(`${short} ${what}`, { ...group, count: group.count + 1, bytes: group.bytes + bytes });
  }
  const rows = [...groups.values()].map(({ name, what, count, bytes }) => [
    `  ${printable(name)}`,
    printable(what),
    count > 1 ? `x ${count}` : "",
    sizeOf(bytes),
  ]);
  return aligned(rows, [false, false, true, true]);
}

function fitTable({ fits, shape }: Inspection): string {
  const head = ["  weights", "take", "cache", "tokens beside them", `requests of ${shape.context} at once`];
  const rows = fits.map(({ weights, weightBytes, kv, tokens, requests }) => [
    `  ${weights}`,
    sizeOf(weightBytes),
    kv,
    tokens > 0 ? tokens.toLocaleString("en") : "does not fit",
    requests > 0 ? requests.toLocaleString("en") : "none",
  ]);
  return aligned([head, ...rows], [false, true, true, true, true]);
}

function aligned(rows: readonly string[][], right: readonly boolean[]): string {
  const widths = right.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const cell = (text: string, i: number) => (right[i] ? text.padStart(widths[i] ?? 0) : text.padEnd(widths[i] ?? 0));
  return rows.map((row) => row.map(cell).join("  ").trimEnd()).join("\n");
}
