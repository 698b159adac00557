import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { readJson, shippedModelPath } from "../lib/checkpoint.js";
import { SdarError } from "../lib/errors.js";
import { ChatTemplate } from "../lib/text/template.js";

const messages = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Hi {{ there }}" },
];

t.test("the shipped model's template", async (t) => {
  const folder = shippedModelPath();
  const template = ChatTemplate.load(
    folder,
    readJson(join(folder, "tokenizer_config.json"), "TOKENIZER_INVALID") ?? {},
  );
  t.equal(
    template?.render(messages),
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi {{ there }}<|im_end|>\n<|im_start|>assistant\n",
  );
});

t.test("where templates come from", async (t) => {
  const dir = t.testdir({ file: { "chat_template.jinja": "file {{ eos_token }}" }, none: {} });
  const config = { chat_template: "config", eos_token: { content: "</s>" }, bos_token: null };
  const render = (folder: string, chat_template: unknown) =>
    ChatTemplate.load(join(dir, folder), { ...config, chat_template })?.render(messages);
  t.equal(render("file", "config"), "file </s>", "the file comes first, and sees the special tokens");
  t.equal(render("none", "config"), "config");
  t.equal(render("none", undefined), undefined);
  t.equal(render("none", null), undefined);
  const named = [
    { name: "tool_use", template: "tools" },
    { name: "default", template: "plain {{ add_generation_prompt }}" },
  ];
  t.equal(render("none", named), "plain True");
  t.equal(render("none", [{ name: "only", template: "only" }]), "only");
  t.equal(render("none", { default: "d", rag: "r" }), "d");
  t.throws(() => render("none", [named[0], { name: "rag", template: "x" }]), {
    code: "TEMPLATE_FAILED",
    message: /tool_use, rag/,
  });
  t.throws(() => render("none", 3), { code: "TEMPLATE_FAILED" });
  t.throws(() => render("none", [null, 3]), { code: "TEMPLATE_FAILED" });
});

t.test("templates that fail", async (t) => {
  const template = (source: string) => new ChatTemplate(source, {}, "some/file");
  const unparsed = template("{% if %}");
  t.throws(() => unparsed.render(messages), { code: "TEMPLATE_FAILED", message: /some\/file/ });
  const strict = template(
    "{%- if messages[0].role != 'user' %}{{ raise_exception('user first, please') }}{%- endif %}",
  );
  t.throws(() => strict.render(messages), { code: "TEMPLATE_FAILED", message: /user first, please/ });
  t.equal(strict.render(messages.slice(1)), "");
});

// test/templates: what Python's Jinja2 makes of them, recorded by record.py.
const recorded = (name: string) =>
  readFileSync(fileURLToPath(new URL(`templates/${name}`, import.meta.url)), { encoding: "utf8" });
type Outputs = Record<string, string | null>;
const snippets = JSON.parse(recorded("snippets.json"));

/** The text, or the SdarError that the template ends with. */
function outcome(source: string, given = snippets.messages, variables = snippets.variables): string | SdarError {
  try {
    return new ChatTemplate(source, {}, "test").render(given, variables);
  } catch (error) {
    if (error instanceof SdarError && error.code === "TEMPLATE_FAILED") return error;
    throw error;
  }
}

const textOrNull = (result: string | SdarError) => (typeof result === "string" ? result : null);

t.test("snippets render as Jinja2 renders them", async (t) => {
  for (const [source, want] of Object.entries(snippets.outputs as Outputs)) {
    if (textOrNull(outcome(source)) !== want) t.same({ source, result: outcome(source) }, { source, result: want });
  }
  t.ok(Object.keys(snippets.outputs).length > 800);
});

t.test("what cannot be rendered as Jinja2 does is refused by name", async (t) => {
  for (const [source, name] of Object.entries(snippets.unsupported as Record<string, string>)) {
    const result = outcome(source);
    t.ok(result instanceof SdarError && result.message.includes(`${name} is not supported`), source, { result });
  }
});

t.test("random expressions render as in Jinja2, or are refused by name", async (t) => {
  let refused = 0;
  const outputs = JSON.parse(recorded("random.json")) as Outputs;
  for (const [source, want] of Object.entries(outputs)) {
    const result = outcome(source);
    if (result instanceof SdarError && want !== null && result.message.endsWith("is not supported")) refused++;
    else if (textOrNull(result) !== want) t.same({ source, result }, { source, result: want });
  }
  t.ok(refused < Object.keys(outputs).length / 50, `${refused} refused`);
});

t.test("conversations through whole templates", async (t) => {
  let compared = 0;
  for (const { messages, variables, outputs } of JSON.parse(recorded("conversations.json"))) {
    for (const [file, want] of Object.entries(outputs as Outputs)) {
      const result = outcome(recorded(file), messages, variables);
      if (textOrNull(result) !== want) t.same({ file, messages, result }, { file, messages, result: want });
      compared++;
    }
  }
  t.ok(compared > 200);
});

t.test("a template cannot run away", async (t) => {
  const template = recorded("sdar-8b-chat.jinja");
  const history = Array.from({ length: 2000 }, (_, i) => ({ role: i % 2 ? "assistant" : "user", content: `a ${i}` }));
  const text = outcome(template, history, {});
  t.equal(typeof text === "string" && text.split("<|im_start|>").length, 2002);
  for (const endless of [
    "{{ range(10 ** 9) }}",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10 ** 12 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{% set ns = namespace(x=[]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "{{ '%999999999d' % 1 }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(0) }}",
    `{{ ${"(".repeat(100_000)} }}`,
  ]) {
    t.ok(outcome(endless) instanceof SdarError, endless.slice(0, 80));
  }
});
