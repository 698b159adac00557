// For node --import: test/ and lib/ as they are. tap's own hooks load the TypeScript compiler twice into each process.
import { register } from "node:module";

register("./hooks.mjs", import.meta.url);
// .taprc sets it, which keeps tap's own hooks away; the processes that tests start need not know.
delete process.env.TAP_TYPE_STRIP_ONLY;
// tap also measures what each node that a test starts covers, which doubles its time; here nothing asks for coverage.
globalThis[Symbol.for("process-on-spawn@*:singletonId")]?.unwrap();
const options = (process.env.NODE_OPTIONS ?? "").replace(/"?--import=\S*@tapjs\/processinfo\S*/, "").trim();
if (options) process.env.NODE_OPTIONS = options;
else delete process.env.NODE_OPTIONS;
