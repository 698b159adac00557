// Completions, in bash for real; of the other shells their syntax where they are installed, and that everything is in them.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import t from "tap";
import { bashScript, fishScript, zshScript } from "../lib/cli/completion-scripts.js";
import { describeProgram } from "../lib/cli/completion-tree.js";
import { makeProgram } from "../lib/cli/program.js";
import { sdar } from "./sdar.js";

const program = makeProgram();
const commands = describeProgram(program);

t.test("bash completes commands, options, values and files", async (t) => {
  const folder = t.testdir({ "a file.jsonl": "", "a folder": { x: "" } });
  const script = join(folder, "script");
  const { status, stdout } = await sdar(["completion", "bash"]);
  t.equal(status, 0);
  t.equal(stdout, bashScript(commands));
  writeFileSync(script, stdout);
  /** The last word is the one at the cursor. One shell for all lines. */
  const complete = (lines: string[][]): string[][] => {
    const calls = lines.map(
      (words) =>
        `COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}; _sdar; ` +
        `printf '%s\\n' "\${COMPREPLY[@]}"; echo --`,
    );
    const bash = spawnSync("bash", ["--norc", "-c", `. ./script\n${calls.join("\n")}`], {
      cwd: folder,
      encoding: "utf8",
    });
    t.equal(bash.stderr, "");
    return bash.stdout
      .split("--\n")
      .slice(0, -1)
      .map((text) => text.split("\n").filter(Boolean).sort());
  };
  const expected: [string[], string[]][] = [
    [["sdar", ""], program.commands.map((one) => one.name()).sort()],
    [["sdar", "ge"], ["generate"]],
    [["sdar", "bench", "la"], ["latency"]],
    [
      ["sdar", "cache", ""],
      ["clear", "ls"],
    ],
    [
      ["sdar", "generate", "--th"],
      ["--threads", "--threshold"],
    ],
    [
      ["sdar", "generate", "--device", "c"],
      ["cpu", "cuda"],
    ],
    [
      ["sdar", "generate", "--device", "=", "c"],
      ["cpu", "cuda"],
    ],
    [
      ["sdar", "generate", "--device", "="],
      ["auto", "cpu", "cuda"],
    ],
    [["sdar", "generate", "--strategy", "dyn"], ["dynamic"]],
    [["sdar", "generate", "--max-tokens", ""], []],
    [["sdar", "generate", "-m", "sd"], ["sdar-nano"]],
    [
      ["sdar", "generate", "-m", ""],
      ["a folder", "sdar-nano"],
    ],
    [["sdar", "generate", "-m", "chat", "--watc"], ["--watch"]],
    [
      ["sdar", "eval", "a"],
      ["a file.jsonl", "a folder"],
    ],
    [
      ["sdar", "eval", "a file.jsonl", "--out", "a f"],
      ["a file.jsonl", "a folder"],
    ],
    [
      ["sdar", "completion", ""],
      ["bash", "fish", "zsh"],
    ],
    [
      ["sdar", "bench", "quality", "--weights", "int"],
      ["int4", "int8"],
    ],
  ];
  const found = complete(expected.map(([words]) => words));
  for (const [i, [words, wanted]] of expected.entries()) t.same(found[i], wanted, words.join(" "));
  t.match(await sdar(["completion", "tcsh"]), { status: 2, stderr: /Allowed choices are bash, zsh, fish/ });
});

t.test("zsh and fish know every command, option and value, and can parse their scripts", async (t) => {
  const [zsh, fish] = [zshScript(commands), fishScript(commands)];
  for (const { path, subcommands, options } of commands) {
    for (const { name } of subcommands) {
      t.ok(zsh.includes(`'${name}:`) && fish.includes(`__sdar_at ${path}' -f -a '${name}'`), `${path} ${name}`);
    }
    const missing = options.flatMap(({ names }) => names).filter((name) => !zsh.includes(`'${name}:`));
    t.same(missing, [], path);
    const long = options.flatMap(({ names }) => names).filter((name) => name.startsWith("--"));
    const lines = fish.split("\n").filter((line) => line.includes(`-n '__sdar_at ${path}' `));
    t.same(
      long.filter((name) => !lines.some((line) => line.includes(` -l ${name.slice(2)} `))),
      [],
      path,
    );
  }
  t.match(zsh, /'sdar generate --device'.*\) compadd -- 'auto' 'cpu' 'cuda'; return ;;/);
  t.match(fish, /__sdar_at sdar generate' -l device -x -a 'auto cpu cuda' -d /);
  const syntax = (shell: string, script: string) => {
    const run = spawnSync(shell, ["-n"], { input: script, encoding: "utf8" });
    if (run.error) t.comment(`${shell} is not installed`);
    else t.match({ status: run.status, stderr: run.stderr }, { status: 0, stderr: "" }, shell);
  };
  syntax("zsh", zsh);
  syntax("fish", fish);
  syntax("bash", bashScript(commands));
});

t.test("every help ends with examples that begin with the command", async (t) => {
  const check = (command: Command, path: string) => {
    let text = "";
    command.configureOutput({ writeOut: (part) => (text += part) });
    command.outputHelp();
    const examples = text.split(/\nExamples?\b[^\n]*:\n/)[1] ?? "";
    t.ok(examples.includes(` ${path}`), path);
    const long = text.split("\n").filter((line) => line.length > 110);
    t.same(long, [], `${path}: no line that runs out of a window`);
    for (const one of command.commands) check(one, `${path} ${one.name()}`);
  };
  check(program, "sdar");
});
