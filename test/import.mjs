// For node --import: test/ and lib/ as they are. tap's own hooks load the TypeScript compiler twice into each process.
import { register } from "node:module";

register("./hooks.mjs", import.meta.url);
// .taprc sets it, which keeps tap's own hooks away; the processes that tests start need not know.
delete process.env.TAP_TYPE_STRIP_ONLY;
