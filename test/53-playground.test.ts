// The playground in a browser, against a server of its own: what one sees, with the keyboard, on a phone, in the dark.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import t, { type Test } from "tap";
import { Engine, type GenerateResult } from "../lib/index.js";
import { createServer, parseApiKeys, type ServerOptions } from "../lib/server/index.js";
import { scripted } from "./scripted.js";

const executablePath = process.env.SDAR_TEST_CHROMIUM ?? "/usr/bin/chromium";
const skip = existsSync(executablePath) ? false : `no ${executablePath}; install chromium, or set SDAR_TEST_CHROMIUM`;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const engine = await Engine.load("sdar-nano");
let browser: Browser | undefined;
t.teardown(async () => {
  await browser?.close();
  await engine.dispose();
});

async function serving(t: Test, options: Partial<ServerOptions> = {}): Promise<string> {
  const server = await createServer({ models: { nano: engine }, ...options });
  const url = await server.listen();
  t.teardown(() => server.close(0));
  return `${url}/`;
}

/** A page in a context of its own, and what its console has complained of. */
async function opened(t: Test, url: string, options: BrowserContextOptions = {}) {
  browser ??= await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  t.teardown(() => context.close());
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(url);
  return { page, complaints };
}

const ready = (page: Page) => page.locator("#send:enabled").waitFor();
/** Until the last answer is over. */
const over = (page: Page) => page.locator("#send:visible").waitFor();

async function ask(page: Page, prompt: string): Promise<void> {
  await page.fill("#prompt", prompt);
  await page.press("#prompt", "Enter");
  await page.locator(".turn").last().waitFor();
}

/** Of each final token: what is written and how sure it is. */
const tokensOf = (page: Page) =>
  page
    .locator(".turn:last-child .lane:first-child .token")
    .evaluateAll((spans) =>
      spans.map((span) => ({ state: span.dataset.state, unsure: span.style.getPropertyValue("--unsure") })),
    );

async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const found = await page.evaluate("axe.run().then(({ violations }) => violations)");
  return (found as { id: string; nodes: { html: string }[] }[]).map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`);
}

const prompt = "Count the atoms in Ca3(PO4)2";
const messages = [{ role: "user" as const, content: prompt }];

t.test("masks resolve into tokens; what was said stays after a reload, and goes when cleared", { skip }, async (t) => {
  const { page, complaints } = await opened(t, await serving(t));
  await ready(page);
  await page.selectOption("#pace", "400");
  await page.selectOption("#strategy", "low_confidence_static");
  await ask(page, prompt);
  await page.locator(".token[data-state=mask]").first().waitFor();
  await page.locator(".token[data-state=draft]").first().waitFor();
  t.ok(
    (await tokensOf(page)).some(({ state }) => state === "mask"),
    "some are filled while others are not",
  );
  await page.selectOption("#pace", "0");
  await over(page);
  const denoise = { strategy: "low_confidence_static" } as const;
  const { text, usage } = await engine.generate({ messages, denoise }).result();
  const shown = page.locator(".answer .token:not(.end)");
  t.equal((await shown.allTextContents()).join(""), text);
  const tokens = await tokensOf(page);
  t.equal(tokens.length, usage.completionTokens);
  t.ok(tokens.every(({ state, unsure }) => state === "final" && Number(unsure) >= 0 && unsure !== ""));
  t.match(await page.locator(".stats").textContent(), /tok\/s/);
  t.match(await page.locator(".stats").textContent(), new RegExp(`\\b${usage.forwards}\\sforwards?\\b`));
  await page.locator(".token").first().hover();
  t.match(await page.locator("#tip").textContent(), /confidence\d+\.\d %step\d+block\d+token id\d+/);
  await page.getByRole("button", { name: "Replay" }).click();
  await page.locator(".answer:not([aria-busy])").waitFor();
  t.equal((await shown.allTextContents()).join(""), text, "a replay ends where the answer did");

  await page.reload();
  await ready(page);
  t.equal((await shown.allTextContents()).join(""), text);
  t.equal(await page.inputValue("#strategy"), "low_confidence_static");
  await page.getByRole("button", { name: "Clear history" }).click();
  await page.locator("#empty").waitFor();
  await page.getByRole("button", { name: "Undo" }).click();
  await page.locator(".turn").waitFor();
  await page.getByRole("button", { name: "Clear history" }).click();
  await page.reload();
  await ready(page);
  t.equal(await page.locator(".turn").count(), 0);
  t.same(complaints, []);
});

t.test("stopping keeps what was seen, and ends the generation", { skip }, async (t) => {
  const { engine: endless } = await scripted(t, [{ pieces: ["what was seen"], ends: "goes on" }]);
  const { page, complaints } = await opened(t, await serving(t, { models: { nano: endless } }));
  await ready(page);
  const ended = new Promise<unknown>((resolve) => endless.once("finished", (event) => resolve(event)));
  await ask(page, prompt);
  const shown = page.locator(".token[data-state=final]");
  await page.getByText("what was seen").waitFor();
  await page.keyboard.press("Escape");
  await over(page);
  t.match(await ended, { finishReason: "abort" });
  t.match(await page.locator(".stats").textContent(), "stopped");
  t.equal((await shown.allTextContents()).join(""), "what was seen");
  t.ok((await tokensOf(page)).every(({ state }) => state === "final"));
  t.same(complaints, []);
});

t.test("the dial, the schema, completion, and one token per forward beside it", { skip }, async (t) => {
  const { page, complaints } = await opened(t, await serving(t));
  await ready(page);
  await page.selectOption("#pace", "0");
  const sent: Record<string, unknown>[] = [];
  page.on("request", (request) => {
    if (request.method() === "POST") sent.push(request.postDataJSON());
  });
  await page.check("[name=quality][value=fast]", { force: true });
  await ask(page, prompt);
  await over(page);
  t.match(sent[0], { model: "nano", stream: true, messages, sdar: { quality: "fast", drafts: true } });

  await page.check("[name=quality][value='']", { force: true });
  await page.fill("#threshold", "0.5");
  await page.fill("#blockLength", "4");
  await page.fill("#maxTokens", "200");
  await page.check("[name=structured]");
  await page.fill("#schema", "{");
  await ask(page, prompt).catch(() => {});
  t.match(await page.locator("#schema-error").textContent(), /no JSON/);
  t.equal(await page.evaluate("document.activeElement.id"), "schema", "what is wrong has the focus");
  t.equal(sent.length, 1, "nothing was sent");
  await page.click("#example-schema");
  await page.selectOption("#beside", { label: "one token per forward" });
  await page.press("#prompt", "Enter");
  await page.locator(".turn:nth-child(2) .verdict").waitFor();
  t.match(sent[1], { max_tokens: 200, sdar: { threshold: 0.5, strategy: "low_confidence_dynamic", blockLength: 4 } });
  t.match(sent[2], { sdar: { strategy: "low_confidence_static", steps: 4, blockLength: 4 } });
  const text = await page.locator(".turn:nth-child(2) .lane:first-child .token:not(.end)").allTextContents();
  t.match(JSON.parse(text.join("")), { name: String, count: Number });
  t.match(await page.locator(".verdict").last().textContent(), /nano was \d+(\.\d)?× .*tok\/s.*tok\/s/);

  await page.uncheck("[name=structured]");
  await page.check("[name=mode][value=complete]", { force: true });
  await page.selectOption("#beside", "");
  await page.fill("#threshold", "0.9");
  await page.fill("#blockLength", "");
  await ask(page, "Sort: 3 1 2");
  await over(page);
  const direct: GenerateResult = await engine.generate({ prompt: "Sort: 3 1 2", maxTokens: 200 }).result();
  t.equal((await page.locator(".answer .token:not(.end)").allTextContents()).join(""), direct.text);
  t.same(complaints, []);
});

t.test("by keyboard alone", { skip }, async (t) => {
  const { page } = await opened(t, await serving(t), { reducedMotion: "reduce" });
  await ready(page);
  const focused = () => page.evaluate("document.activeElement.id");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter"); // the link to the prompt
  t.equal(await focused(), "prompt");
  await page.keyboard.type(prompt);
  await page.keyboard.press("Enter");
  await page.locator(".answer:not([aria-busy])").waitFor();
  await over(page);
  t.equal(await focused(), "prompt", "ready for the next");
  await page.keyboard.press("Shift+Tab");
  t.equal(await page.locator(".answer:focus-visible").count(), 1, "one stop for all tokens");
  await page.keyboard.press("End");
  await page.keyboard.press("ArrowLeft");
  const token = page.locator(".token:focus");
  t.equal(await token.getAttribute("aria-describedby"), "tip");
  t.match(await page.locator("#tip").textContent(), "confidence");
  await page.keyboard.press("Escape");
  t.equal(await page.locator("#tip").isVisible(), false);
  const outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle");
  t.equal(outline, "solid", "the focus is seen");
  t.match(await page.locator("#status").textContent(), /^Done: nano, \d+ tokens?,/, "said once, at the end");
});

t.test("on a phone, in the dark, nothing is cut off, and axe finds nothing", { skip }, async (t) => {
  const url = await serving(t);
  const phone = { viewport: { width: 360, height: 740 }, colorScheme: "dark" as const, hasTouch: true };
  const { page, complaints } = await opened(t, url, phone);
  await ready(page);
  const wide = () => page.evaluate("document.documentElement.scrollWidth > innerWidth");
  const ground = () => page.evaluate("getComputedStyle(document.body).backgroundColor");
  const dark = await ground();
  await page.click("#settings-toggle");
  await page.check("[name=structured]");
  t.notOk(await wide());
  t.same(await violations(page), []);
  await page.uncheck("[name=structured]");
  await page.selectOption("#beside", { label: "one token per forward" });
  await page.selectOption("#pace", "0");
  await page.click("#settings-toggle");
  await ask(page, `${prompt} ${"x".repeat(120)}`);
  await page.locator(".verdict:visible").waitFor();
  await over(page);
  t.notOk(await wide());
  t.same(await violations(page), []);
  await page.click("#theme");
  t.not(await ground(), dark, "light, against the system");
  await page.reload();
  await ready(page);
  t.not(await ground(), dark, "kept");
  t.same(await violations(page), []);
  t.same(complaints, []);
});

t.test("what the server refuses is told; a key is asked for", { skip }, async (t) => {
  const url = await serving(t, { apiKeys: parseApiKeys("sk-one") });
  const { page } = await opened(t, url);
  await page.locator("#key").waitFor();
  t.equal(await page.evaluate("document.activeElement.id"), "key");
  t.same(await violations(page), []);
  await page.fill("#key", "sk-two");
  await page.press("#key", "Enter");
  await page.getByText("does not know this key").waitFor();
  await page.fill("#key", "sk-one");
  await page.press("#key", "Enter");
  await ready(page);
  t.notOk(await page.locator("#key-form").isVisible());
  const long = "x ".repeat(3000).trimEnd();
  await ask(page, long).catch(() => {});
  await page.locator("#problem:visible").waitFor();
  t.match(await page.locator("#problem").textContent(), /1024/);
  t.equal(await page.inputValue("#prompt"), long, "the prompt is not lost");
  t.equal(await page.locator(".turn").count(), 0);
});

t.test("its files come with a strict policy, under any prefix, and not at all where it is not wanted", async (t) => {
  const url = await serving(t, { prefix: "/llm" });
  const response = await fetch(url.replace(/\/$/, "/llm"));
  t.equal(response.url, `${url}llm/`, "from where its files are found");
  const policy = response.headers.get("content-security-policy") ?? "";
  t.match(policy, "default-src 'none'; script-src 'self'");
  t.notMatch(policy, /unsafe/);
  const page = await response.text();
  const files = [...page.matchAll(/(?:src|href)="(page\/[^"]+)"/g)].map(([, file]) => file as string);
  t.ok(files.length > 4);
  for (const file of new Set(files)) {
    const answer = await fetch(`${url}llm/${file}`);
    t.equal(answer.status, 200, file);
    t.equal(answer.headers.get("x-content-type-options"), "nosniff");
    const etag = answer.headers.get("etag") ?? "";
    t.equal((await fetch(`${url}llm/${file}`, { headers: { "if-none-match": etag } })).status, 304);
  }
  t.equal((await fetch(`${url}llm/page/..%2fplugin.ts`)).status, 404);
  t.equal((await fetch(`${url}llm/`, { method: "POST" })).status, 405);
  t.equal((await fetch(await serving(t, { page: false }))).status, 404);
});
