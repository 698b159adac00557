import { Engine } from "sdar-engine";
import { toSSEResponse } from "sdar-engine/http";

let engine;

export async function POST(request) {
  engine ??= Engine.load("sdar-nano");
  const { messages } = await request.json();
  return toSSEResponse((await engine).generate({ messages }));
}
