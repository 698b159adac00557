// The server's API: models, and answers as they come.

/** What the server refused, or what went wrong on the way to it. */
export class Refusal extends Error {
  constructor(status, { message, code = null, param = null } = {}) {
    super(message ?? `the server answered with status ${status}`);
    this.name = "Refusal";
    this.status = status;
    this.code = code;
    this.param = param;
  }
}

const keptKey = "sdar-api-key";
let apiKey = "";
try {
  apiKey = sessionStorage.getItem(keptKey) ?? "";
} catch {}

/** Sent with all requests from now on; kept until the tab is closed. */
export function setApiKey(key) {
  apiKey = key;
  try {
    if (key === "") sessionStorage.removeItem(keptKey);
    else sessionStorage.setItem(keptKey, key);
  } catch {}
}

async function ask(path, options = {}) {
  const headers = { ...(options.body && { "content-type": "application/json" }) };
  if (apiKey !== "") headers.authorization = `Bearer ${apiKey}`;
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, { message: "the server cannot be reached" });
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Refusal(response.status, error ?? {});
}

/** The models that can be used, as the server lists them. */
export async function listModels() {
  return (await (await ask("v1/models")).json()).data;
}

/** Whether models are still being loaded. */
export async function isLoading() {
  try {
    await ask("ready");
    return false;
  } catch (error) {
    return error.code === "model_loading";
  }
}

/** The events of a streamed answer. Throws Refusal, also where the stream ends before the answer does. */
export async function* stream(path, body, signal) {
  const response = await ask(path, { method: "POST", body: JSON.stringify(body), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, complete] = ["", false];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done && complete) return;
      if (done) throw new Refusal(0, { message: "the connection ended before the answer did" });
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ")) continue; // comments, and the empty lines between events
        const data = line.slice(6);
        complete = data === "[DONE]";
        if (complete) continue;
        const event = JSON.parse(data);
        if (event.error) throw new Refusal(response.status, event.error);
        yield event;
      }
    }
  } catch (error) {
    if (error instanceof Refusal || error.name === "AbortError") throw error;
    throw new Refusal(0, { message: "the connection to the server broke off" });
  } finally {
    reader.cancel().catch(() => {});
  }
}
