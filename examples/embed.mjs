// Embeds the engine in a script: one question, streamed, then what it took.
//   node examples/embed.mjs ["Count the atoms in C6H12O6"]
import { Engine, SdarError } from "sdar-engine";

const question = process.argv[2] ?? "Count the atoms in Ca3(PO4)2";
const engine = await Engine.load("sdar-nano"); // or a folder in the Hugging Face layout
try {
  const run = engine.generate({ messages: [{ role: "user", content: question }], maxTokens: 64 });
  for await (const chunk of run) process.stdout.write(chunk.text);
  const { usage, finishReason } = await run.result();
  console.log(`\n${finishReason}: ${usage.completionTokens} tokens in ${usage.forwards} forwards`);
} catch (error) {
  // Everything that goes wrong has a code; codes are stable, messages are not.
  if (!(error instanceof SdarError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
} finally {
  await engine.dispose(); // from Node 24 on, `await using engine = …` does the same
}
