// Lines of training data to tokens: what is learnt, and what is refused.
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { readJson, shippedModelPath } from "../lib/checkpoint.js";
import { ChatTemplate } from "../lib/text/template.js";
import { Tokenizer } from "../lib/text/tokenizer.js";
import { linesOf, maxLineBytes } from "../lib/train/lines.js";
import { SampleMaker } from "../lib/train/samples.js";

const config = readJson(join(shippedModelPath(), "tokenizer_config.json"), "TOKENIZER_INVALID") ?? {};
const tokenizer = Tokenizer.load(shippedModelPath(), config) as Tokenizer;
tokenizer.addControl([556, 558, 559]);
const [eos, turnEnd] = [556, 558];

const maker = (template?: string) =>
  new SampleMaker(
    tokenizer,
    template ? new ChatTemplate(template, config, "test") : ChatTemplate.load(shippedModelPath(), config),
    [eos, turnEnd],
  );
const make = (line: unknown, by = maker()) =>
  by.make(Buffer.from(typeof line === "string" ? line : JSON.stringify(line)));
const ids = (text: string) => [...tokenizer.encode(text, { addSpecial: false })];

/** Tokens by what they are: [context, answer, context, …]. */
function parts(sample: number[]): number[][] {
  const found: number[][] = [[]];
  for (const token of sample) {
    if ((found.length % 2 === 0) !== (token % 2 === 1)) found.push([]);
    found.at(-1)?.push(token >> 1);
  }
  return found;
}

t.test("the answer is what the assistant says, up to its end token", async (t) => {
  const [sample, ...none] = make({
    id: 7,
    messages: [
      { role: "user", content: "1 + 1" },
      { role: "assistant", content: "2" },
    ],
  });
  t.strictSame(none, []);
  t.strictSame(parts(sample ?? []), [
    ids("<|im_start|>user\n1 + 1<|im_end|>\n<|im_start|>assistant\n"),
    [...ids("2"), turnEnd],
  ]);
});

t.test("a conversation is one sample; what comes after its last answer is left out", async (t) => {
  const messages = ["a", "b", "c", "d", "e"].map((content, i) => ({ role: i % 2 ? "assistant" : "user", content }));
  const [sample, ...none] = make({ messages });
  t.strictSame(none, []);
  t.strictSame(parts(sample ?? []), [
    ids("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"),
    [...ids("b"), turnEnd],
    ids("\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"),
    [...ids("d"), turnEnd],
  ]);
});

t.test("a template that writes earlier answers otherwise makes a sample of each", async (t) => {
  const template =
    "{% for m in messages %}{{ m.role }}:{% if loop.last and m.role == 'assistant' %}(thought){% endif %}{{ m.content }};{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
  const messages = ["a", "b", "c", "d"].map((content, i) => ({ role: i % 2 ? "assistant" : "user", content }));
  const samples = make({ messages }, maker(template)).map(parts);
  t.strictSame(samples, [
    [ids("user:a;assistant:"), ids("(thought)b;")],
    [ids("user:a;assistant:b;user:c;assistant:"), ids("(thought)d;")],
  ]);
});

t.test("names of control tokens in messages stay text; fields by OpenAI's names are understood", async (t) => {
  const content = "<|im_end|>";
  const [sample] = make({
    messages: [
      { role: "user", content },
      { role: "assistant", content, tool_calls: null },
    ],
  });
  const [before, answer] = parts(sample ?? []) as [number[], number[]];
  t.equal(before.filter((id) => id === turnEnd).length, 1);
  t.equal(answer.indexOf(turnEnd), answer.length - 1);
  t.ok(answer.length > 3);
});

t.test("prompt and completion, and text", async (t) => {
  t.strictSame(make({ prompt: "1 +", completion: " 2" }).map(parts), [[ids("1 +"), [...ids(" 2"), eos]]]);
  t.strictSame(make({ prompt: "", completion: "2<|im_end|>" }).map(parts), [[[], [...ids("2"), turnEnd]]]);
  t.strictSame(make({ text: "abc" }).map(parts), [[[], [...ids("abc"), eos]]]);
});

t.test("what no sample can be made of", async (t) => {
  const cases: [line: unknown, message: RegExp][] = [
    ["{", /^is not valid JSON/],
    ["[]", /^is not a JSON object/],
    [{ say: "x" }, /^has none of messages/],
    [{ text: "x", prompt: "y" }, /^has more than one of messages/],
    [{ prompt: "x" }, /^completion: undefined is not allowed; give a string/],
    [{ text: 7 }, /^text: 7 is not allowed/],
    [{ text: "" }, /^text is empty/],
    [{ messages: [] }, /^messages: .* at least one message/],
    [{ messages: [{ role: "user", content: "x" }] }, /^messages: none is the assistant's/],
    [{ messages: [{ role: 3, content: "x" }] }, /^messages\[0\]\.role: 3 is not allowed/],
    [{ messages: [{ role: "user", content: "x", colour: "red" }] }, /^unknown option "messages\[0\]\.colour"/],
  ];
  for (const [line, message] of cases) t.throws(() => make(line), { message }, String(message));
  t.throws(() => maker().make(Buffer.from([0x22, 0xff, 0x22])), { message: /not valid JSON/ });
  t.throws(() => make({ messages: [{ role: "assistant", content: "x" }] }, maker("{{ add_generation_prompt }}")), {
    message: /^messages\[0\]: the chat template writes it otherwise than it asks for it/,
  });
});

t.test("lines: of any length and ending, numbered, hashed; those that are too long are not kept", async (t) => {
  const file = join(t.testdir({}), "lines");
  const read = (text: string) => {
    writeFileSync(file, text);
    const hash = createHash("sha256");
    const lines = [...linesOf(file, hash)].map(({ number, bytes }) => [number, bytes?.toString() ?? null]);
    t.equal(hash.digest("hex"), createHash("sha256").update(text).digest("hex"));
    return lines;
  };
  t.strictSame(read(""), []);
  t.strictSame(read("a\n\n  \t\nb"), [
    [1, "a"],
    [4, "b"],
  ]);
  t.strictSame(read("a\r\nb\n"), [
    [1, "a\r"],
    [2, "b"],
  ]);
  const wide = "é".repeat(1_500_000);
  t.strictSame(read(`${wide}\nb`), [
    [1, wide],
    [2, "b"],
  ]);
  t.strictSame(read(`${" x".repeat(maxLineBytes / 2)}y\nb`), [
    [1, null],
    [2, "b"],
  ]);
});
