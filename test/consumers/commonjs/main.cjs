// CommonJS: require() of an ES module, which Node has from 22.12 on; before that, import().
const { Engine } = require("sdar-engine");

Engine.load("sdar-nano").then(async (engine) => {
  console.log(await engine.generate({ messages: [{ role: "user", content: "31 x 7" }] }).text());
  await engine.dispose();
});
