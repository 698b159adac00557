// Native addons and worker threads are not for bundlers: the package stays what it is. What is traced for a standalone server are
// the modules; the model that ships, the addon and the thread for texts are named.
export default {
  output: "standalone",
  outputFileTracingRoot: import.meta.dirname,
  outputFileTracingIncludes: { "/api/chat": ["./node_modules/sdar-engine/{dist,models,prebuilds}/**/*"] },
  serverExternalPackages: ["sdar-engine"],
};
