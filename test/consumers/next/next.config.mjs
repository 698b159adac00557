// Native addons and worker threads are not for bundlers: the package stays what it is, and its files are traced.
export default { output: "standalone", serverExternalPackages: ["sdar-engine"] };
