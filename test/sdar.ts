// The command line, as the build made it.
import { type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { packageRoot } from "../lib/checkpoint.js";

export const main = join(packageRoot, "dist", "cli", "main.js");

/** Runs `sdar`; `input` is its standard input, none by default. */
export async function sdar(args: string[], { input, ...options }: SpawnOptions & { input?: string } = {}) {
  const child = spawn(process.execPath, [main, ...args], { stdio: "pipe", ...options });
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  child.stdin?.end(input ?? "");
  const [status, signal] = await once(child, "close");
  return { status, signal, stdout, stderr };
}
