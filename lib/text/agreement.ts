// Whether a draft writes the tokens that its target reads.
import type { NativeModelInfo } from "../binding.js";
import { SdarError } from "../errors.js";
import type { AddedToken } from "./added-tokens.js";
import { Texts } from "./texts.js";
import type { TokenBytes } from "./token-bytes.js";

type Tables = Pick<Texts, "hasTokenizer" | "tokenBytes" | "controlTokens">;

/**
 * Throws INVALID_OPTION, naming the first token that differs, unless every id that both tokenizers know means the same.
 * Where one has none, the draft is taken at its word.
 */
export async function checkDraft(target: Tables, model: NativeModelInfo, folder: string): Promise<void> {
  const draft = new Texts(folder, 1);
  try {
    if (!draft.hasTokenizer || !target.hasTokenizer) return;
    await draft.load();
    await draft.fit({ ...model, maskTokenId: -1 });
    const difference = findDifference(target, draft);
    if (!difference) return;
    const allowed = "a draft with the target's tokenizer";
    throw new SdarError("INVALID_OPTION", `draft: ${folder}: ${difference}; give ${allowed}`, {
      option: "draft",
      allowed,
    });
  } finally {
    draft.close(new SdarError("DISPOSED", "the tokenizers were compared"));
  }
}

function findDifference(target: Tables, draft: Tables): string | undefined {
  const [names, others] = [target, draft].map(({ controlTokens }) => namesOf(controlTokens)) as [Names, Names];
  for (const [id, name] of names) {
    const other = others.get(id) ?? textOf(draft.tokenBytes, id);
    if (other && other !== name) return differs(id, name, other);
  }
  const count = Math.min(countOf(target.tokenBytes), countOf(draft.tokenBytes));
  for (let id = 0; id < count; id++) {
    const text = textOf(target.tokenBytes, id);
    const other = others.get(id) ?? textOf(draft.tokenBytes, id);
    if (text && other && text !== other) return differs(id, text, other);
  }
  return undefined;
}

type Names = Map<number, string>;
const namesOf = (tokens: readonly AddedToken[]): Names => new Map(tokens.map(({ id, content }) => [id, content]));
const countOf = (table: TokenBytes | undefined) => (table ? table.offsets.length - 1 : 0);
const differs = (id: number, text: string, other: string) =>
  `token ${id} is ${JSON.stringify(other)}, the target's is ${JSON.stringify(text)}`;

/** One character for each byte. */
function textOf(table: TokenBytes | undefined, id: number): string {
  if (!table) return "";
  return Buffer.from(table.bytes.subarray(table.offsets[id], table.offsets[id + 1])).toString("latin1");
}
