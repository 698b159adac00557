import { join } from "node:path";
import t from "tap";
import { readJson, shippedModelPath } from "../lib/checkpoint.js";
import { ChatTemplate } from "../lib/template.js";

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
  t.equal(render("none", named), "plain true");
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
  t.throws(() => template("{% if %}"), { code: "TEMPLATE_FAILED", message: /some\/file/ });
  const strict = template(
    "{%- if messages[0].role != 'user' %}{{ raise_exception('user first, please') }}{%- endif %}",
  );
  t.throws(() => strict.render(messages), { code: "TEMPLATE_FAILED", message: /user first, please/ });
  t.equal(strict.render(messages.slice(1)), "");
});
