// An answer's text taken apart: reasoning, calls of tools, and what stays text, however the text is cut.
import t, { type Test } from "tap";
import { AnswerParts, type Parts, type PartsSetup } from "../lib/answer-parts.js";
import { parseTools } from "../lib/conversation-schema.js";
import { ObjectScanner } from "../lib/object-scanner.js";
import { answerForm } from "../lib/tool-form.js";
import type { ToolCall, ToolChoice } from "../lib/types.js";

type Whole = { text: string; reasoning: string; calls: [name: string, args: string][] };

/** What all chunks come to, and each of them as it came. */
function taken(pieces: string[], setup: Partial<PartsSetup>): { whole: Whole; each: Parts[] } {
  const calls = { names: new Set(["f", "g"]), parallel: true };
  const parts = new AnswerParts({ reasoning: "possible", calls, ...setup });
  const each = [...pieces.map((piece) => parts.take(piece)), parts.take("", true)];
  const whole: Whole = { text: "", reasoning: "", calls: [] };
  for (const { text, reasoning = "", toolCalls = [] } of each) {
    whole.text += text;
    whole.reasoning += reasoning;
    whole.calls.push(...toolCalls.map(({ name, arguments: args }): [string, string] => [name, args]));
  }
  return { whole, each };
}

/** The same in one piece, in units, and in two pieces cut at every place. */
function takes(t: Test, text: string, wanted: Partial<Whole>, setup: Partial<PartsSetup> = {}) {
  const full = { text: "", reasoning: "", calls: [], ...wanted };
  const cuts = [[text], text.split(""), ...Array.from(text, (_, at) => [text.slice(0, at), text.slice(at)])];
  for (const pieces of cuts) {
    const { whole } = taken(pieces, setup);
    if (JSON.stringify(whole) !== JSON.stringify(full)) return t.same(whole, full, JSON.stringify(pieces));
  }
  t.pass(JSON.stringify(text.slice(0, 80)));
}

const call = (inner: string) => `<tool_call>\n${inner}\n</tool_call>`;
const f = call('{"name": "f", "arguments": {"x": [1, {"y": "</tool_call>"}]}}');
const fGiven: [string, string] = ["f", '{"x": [1, {"y": "</tool_call>"}]}'];
const g = call('{"arguments":{},"name":"g"}');

t.test("calls and the text around them", async (t) => {
  takes(t, f, { calls: [fGiven] });
  takes(t, `${f}\n${g}`, { calls: [fGiven, ["g", "{}"]] });
  takes(t, `Let me see.\n${f}\n`, { text: "Let me see.", calls: [fGiven] });
  takes(t, `a\n\n${f}\nb <tool_\n${g} `, { text: "a\n\nb <tool_", calls: [fGiven, ["g", "{}"]] });
  takes(t, `<tool_call>{"name":"g"}</tool_call>`, { calls: [["g", "{}"]] });
  takes(t, `é😀<<tool_call> \t${JSON.stringify({ name: "f", arguments: { é: "😀\n" } })}\r\n</tool_call>😀`, {
    text: "é😀<😀",
    calls: [["f", '{"é":"😀\\n"}']],
  });
  takes(t, '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_', { calls: [["g", "{}"]] });
  takes(t, '<tool_call>\n{"name": "g", "arguments": {}}', { calls: [["g", "{}"]] });
  takes(t, '<tool_call>{"name":"f","name":"g","arguments":3,"arguments":{"a":1,"a":2}}</tool_call>', {
    calls: [["g", '{"a":1,"a":2}']],
  });
});

t.test("what is no call stays text, and harms no call after it", async (t) => {
  for (const inner of [
    "",
    "f(1)",
    "[]",
    "{}",
    '{"name": "f", "arguments": {}',
    '{"name": "f", "arguments": {}} and more',
    '{"name": "other", "arguments": {}}',
    '{"name": "f", "arguments": "{}"}',
    '{"name": "f", "arguments": [1]}',
    '{"name": ["f"], "arguments": {}}',
    '{"name": "f", "arguments": {"x": 01}}',
    '{"name": "f", "arguments": {"x": tru}}',
    '{"name": "f", "arguments": {"x": 1,}}',
    '{"name": "f" "arguments": {}}',
    '{"name": "f", "arguments": {"x": "a line\nend"}}',
    "<tool_call>",
  ]) {
    takes(t, `a\n${call(inner)} b`, { text: `a\n${call(inner)} b` });
    takes(t, `${call(inner)}\n${g}`, { text: call(inner), calls: [["g", "{}"]] });
  }
  const deep = call(`{"name": "f", "arguments": {"x": ${"[".repeat(511)}${"]".repeat(511)}}}`);
  t.equal(taken([deep], {}).whole.text, deep, "nor what is too deep");
  for (const text of ["the <tool_call> tag", "a <tool_call", "a\n", "a\n<", "<tool_call>\n{", "  \n<tool_call>"])
    takes(t, text, { text });
  takes(t, `${f}\n${call("")}\n${g}`, { text: `\n${call("")}`, calls: [fGiven, ["g", "{}"]] });
  takes(t, `${f}${f}`, { text: f, calls: [fGiven] }, { calls: { names: new Set(["f"]), parallel: false } });
  takes(t, f, { text: f }, { calls: undefined });
});

t.test("reasoning", async (t) => {
  takes(t, "<think>\nhm\n\nso\n</think>\n\nYes.", { reasoning: "hm\n\nso", text: "Yes." });
  takes(t, "\n <think>a</think>\n<think>b\n</think> Yes. <think>no</think>", {
    reasoning: "ab",
    text: " Yes. <think>no</think>",
  });
  takes(t, `<think>I call ${f}</think>\n\n${g}`, { reasoning: `I call ${f}`, calls: [["g", "{}"]] });
  takes(t, "<think>\n\n</think>\n\nYes.\n", { text: "Yes.\n" });
  takes(t, "<think>\nnot done </thin", { reasoning: "not done </thin" });
  takes(t, "<think>\nnot done\n\n", { reasoning: "not done" });
  takes(t, "  Yes <think>a</think>", { text: "  Yes <think>a</think>" });
  takes(t, " <thing>", { text: " <thing>" });
  takes(t, `${" ".repeat(70)}<think>`, { text: `${" ".repeat(70)}<think>` });
  takes(t, `${"\n".repeat(70)}</think>${"\n".repeat(70)}x`, { text: "x" }, { reasoning: "open" });
  takes(t, "hm\n</think>\n\nYes.", { reasoning: "hm", text: "Yes." }, { reasoning: "open" });
  takes(t, "hm <think></think>Yes.", { reasoning: "hm <think>", text: "Yes." }, { reasoning: "open" });
  takes(t, "hm", { reasoning: "hm" }, { reasoning: "open" });
  takes(t, "<think>a</think>", { text: "<think>a</think>" }, { reasoning: "never" });
});

t.test("text is held back no longer than it may be part of a mark", async (t) => {
  const at = (text: string, setup: Partial<PartsSetup> = {}) => {
    const parts = taken(text.split(""), setup).each.map(({ text = "", reasoning = "" }) => text + reasoning);
    return parts.slice(0, -1).map((part) => part.length);
  };
  t.same(at("a\nb<c"), [1, 0, 2, 0, 2]);
  t.same(at("<thx", {}), [0, 0, 0, 4]);
  t.same(at("a\n<tool_x"), [1, 0, 0, 0, 0, 0, 0, 0, 8]);
  t.same(at("a\n", { calls: undefined }), [1, 1], "nor where there are no tools");
  t.same(at("h\n\ni<", { reasoning: "open" }), [1, 0, 0, 3, 0]);
  const { each } = taken(`${f}x`.split(""), {});
  t.equal(each[f.length - 1]?.toolCalls?.length, 1, "a call comes with its last character");
  t.equal(each[f.length]?.text, "x");
  t.ok(taken(["<tool_call>\n{".repeat(20_000)], {}).whole.text.length > 200_000, "and takes linear time");
});

t.test("calls have ids of their own, and values that nobody changes", async (t) => {
  const { each } = taken([`${f}\n${f}`], {});
  const [first, second] = each[0]?.toolCalls ?? [];
  t.match(first, { id: /^call_[0-9a-f]{32}$/, name: "f", value: { x: [1, { y: "</tool_call>" }] } });
  t.not(first?.id, second?.id);
  const inner = (first as ToolCall).value.x as object[];
  t.ok([first, first?.value, inner, inner[1]].every(Object.isFrozen));
});

t.test("objects are read as JSON.parse reads them", async (t) => {
  const read = (text: string) => {
    const scanner = new ObjectScanner();
    for (const [i, unit] of text.split("").entries()) {
      const found = scanner.take(unit);
      if (found !== "more") return found === "whole" && i === text.length - 1 ? scanner.members : undefined;
    }
    return undefined;
  };
  const alphabet = [
    '"',
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "1",
    "0",
    "-",
    ".",
    "e",
    " ",
    "\n",
    "u",
    "a",
    "true",
    '"a":',
  ];
  let seed = 7;
  const draw = (n: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * n);
  };
  const whole = '{"a" : [1, -0.5e+3, {"b\\u00e9\\n": true}, "x"], "c": {}, "d": null}';
  let valid = 0;
  for (let i = 0; i < 20_000; i++) {
    let text = whole;
    for (let edits = draw(3); edits >= 0; edits--) {
      const place = draw(text.length);
      text = text.slice(0, place) + (draw(2) ? alphabet[draw(alphabet.length)] : "") + text.slice(place + draw(3));
    }
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {}
    const members = read(text);
    const wanted = /^\s*{/.test(text) && text.endsWith("}") ? value : undefined;
    if (wanted !== undefined) valid++;
    const found = members && Object.fromEntries(Array.from(members, ([name, json]) => [name, JSON.parse(json)]));
    if (JSON.stringify(found) !== JSON.stringify(wanted)) t.same(found, wanted, text);
  }
  t.ok(valid > 1000, `${valid} were valid`);
});

t.test("the form that tools ask of an answer", async (t) => {
  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const tools = [
    { name: "weather", parameters },
    { type: "function" as const, function: { name: "now" } },
    { name: "at", parameters: { properties: {} } },
  ];
  const form = (
    toolChoice?: ToolChoice,
    reasoning: PartsSetup["reasoning"] = "never",
    parallelToolCalls = true,
    format?: string,
  ) => {
    const use = parseTools({ tools, parallelToolCalls, ...(toolChoice && { toolChoice }) });
    return JSON.parse(answerForm(use, reasoning, format) ?? "null");
  };
  t.same(form(), {
    type: "answer",
    reasoning: null,
    calls: {
      mark: "<tool_call>",
      begin: "<tool_call>\n",
      end: "\n</tool_call>",
      between: "\n",
      tools: [
        { name: "weather", schema: parameters },
        { name: "now", schema: { type: "object" } },
        { name: "at", schema: { properties: {}, type: "object" } },
      ],
      choice: "auto",
      parallel: true,
    },
    format: null,
  });
  const chosen = { type: "function" as const, function: { name: "now" } };
  t.match(form(chosen, "open", false), {
    calls: { choice: "required", parallel: false, tools: [{ name: "now" }] },
    reasoning: { open: "<think>", close: "</think>", opened: true },
  });
  t.match(form("required", "possible"), { calls: { choice: "required" }, reasoning: { opened: false } });
  t.match(form("none"), { calls: { choice: "none" } });
  t.same(form("auto", "never", true, '{"type":"json"}').format, { type: "json" });
  t.equal(answerForm(undefined, "open"), undefined, "nothing is asked of it");
  t.equal(answerForm(undefined, "never", '{"type":"json"}'), '{"type":"json"}');
  t.equal(parseTools({ tools: [] }), undefined);
});
