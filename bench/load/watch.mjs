// Loaded into the server's process, before it: says for how long its event loop was blocked.
import { monitorEventLoopDelay } from "node:perf_hooks";

const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();
process.on("message", () => {
  const [p50, p95, p99] = [50, 95, 99].map((percent) => delay.percentile(percent) / 1e6);
  process.send({ p50, p95, p99 });
  delay.reset();
});
// The server's end does not wait for it.
process.channel.unref();
