// The held-out samples of the shipped model.
import { readFileSync } from "node:fs";

export interface Sample {
  task: string;
  prompt: string;
  answer: string;
}

export function samples(): Sample[] {
  const text = readFileSync(new URL("golden/heldout.jsonl", import.meta.url), "utf8");
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}
