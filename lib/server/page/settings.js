// The settings beside the conversation, and the body of a request that they make.
import { byId, make } from "./dom.js";
import { keep, kept } from "./history.js";

const form = () => byId("settings");
const field = (name) => form().elements.namedItem(name);
const valueIn = (name) => field(name).value;

/** The one number that each strategy goes by. */
const parameterOf = {
  low_confidence_dynamic: "threshold",
  low_confidence_static: "steps",
  sequential: "steps",
  entropy_bounded: "entropyBound",
  pairwise_factor: "factor",
  self_verified: "threshold",
};

/** Fewer parameters make a demonstration, not an assistant: it knows no conversations. */
const small = 1e8;
const cards = new Map();

export const cardOf = (model) => cards.get(model);
export const isBlocks = (model) => cards.get(model)?.sdar.decoding === "block_diffusion";
export const isSmall = (model) => (cards.get(model)?.sdar.parameters ?? small) < small;

/** Fills in the models that there are. */
export function setModels(list) {
  cards.clear();
  for (const card of list) cards.set(card.id, card);
  const options = (names) => names.map((name) => make("option", { value: name }, name));
  const [model, beside] = [field("model"), field("beside")];
  const before = [model.value || kept.settings.model, beside.value || kept.settings.beside];
  const blocksFirst = [...cards.keys()].sort((a, b) => isBlocks(b) - isBlocks(a));
  model.replaceChildren(...options(blocksFirst));
  beside.replaceChildren(
    make("option", { value: "" }, "nothing"),
    make("option", { value: "\u0000static" }, "one token per forward"),
    ...options(blocksFirst),
  );
  for (const [select, value] of [
    [model, before[0]],
    [beside, before[1]],
  ])
    if ([...select.options].some((option) => option.value === value)) select.value = value;
  refresh();
}

/** Restores what was kept, and keeps what changes. `onChange` is called after each change. */
export function startSettings(onChange) {
  for (const [name, value] of Object.entries(kept.settings)) {
    const found = field(name);
    if (!found) continue;
    if (found.type === "checkbox") found.checked = value === true;
    else found.value = value;
  }
  form().addEventListener("submit", (event) => event.preventDefault());
  form().addEventListener("input", ({ target }) => {
    if (target.name) kept.settings[target.name] = target.type === "checkbox" ? target.checked : target.value;
    keep();
    refresh();
    onChange();
  });
  byId("example-schema").addEventListener("click", () => {
    field("schema").value = JSON.stringify(exampleSchema, null, 2);
    field("schema").dispatchEvent(new Event("input", { bubbles: true }));
  });
  refresh();
}

const exampleSchema = {
  type: "object",
  properties: { name: { type: "string", maxLength: 40 }, count: { type: "integer" } },
  required: ["name", "count"],
  additionalProperties: false,
};

/** What depends on something else is shown, hidden, or told. */
function refresh() {
  const model = valueIn("model");
  const blocks = cards.size === 0 || isBlocks(model);
  byId("denoising").hidden = !blocks;
  for (const option of field("beside").options)
    option.disabled = option.value === model || (option.value === "\u0000static" && !blocks);
  if (field("beside").selectedOptions[0]?.disabled) field("beside").value = "";
  const own = valueIn("quality") === "";
  byId("own").hidden = !own;
  const shown = parameterOf[valueIn("strategy")];
  for (const name of new Set(Object.values(parameterOf))) byId(`${name}-row`).hidden = name !== shown;
  for (const output of form().querySelectorAll("output")) output.value = valueIn(output.htmlFor.value);
  const { sdar, max_model_len: most } = cards.get(model) ?? {};
  field("blockLength").placeholder = sdar?.blockLength ? `${sdar.blockLength}, the model's` : "the model's";
  field("maxTokens").placeholder = most ? `the rest of ${most}` : "the rest of the context";
  if (kept.settings.context === undefined) field("context").checked = !isSmall(model);
  byId("schema-row").hidden = !field("structured").checked;
  checkSchema();
  document.documentElement.dataset.shade = valueIn("shade");
}

/** The schema; undefined where none is wanted or it is wrong, which is then told beside it. */
function checkSchema() {
  const [box, told] = [field("schema"), byId("schema-error")];
  let problem = "";
  let schema;
  if (field("structured").checked) {
    try {
      schema = JSON.parse(box.value);
      if (typeof schema === "boolean" || Object(schema) !== schema || Array.isArray(schema))
        problem = "A schema is a JSON object.";
    } catch (error) {
      problem = box.value.trim() === "" ? "Give a JSON Schema." : `This is no JSON: ${error.message}`;
    }
  }
  if (told.textContent !== problem) told.textContent = problem;
  box.setAttribute("aria-invalid", String(problem !== ""));
  return problem === "" ? schema : undefined;
}

/** The first field that is wrong, with the panel opened for it; undefined where all is well. */
export function wrongField() {
  if (field("structured").checked && checkSchema() === undefined) return field("schema");
  return [...form().elements].find((element) => element.willValidate && !element.checkValidity());
}

/** Milliseconds from one forward to the next on the page. */
export const pace = () => Number(valueIn("pace"));

/** Who answers: the model, and what was chosen to stand beside it. */
export function chosenLanes() {
  const [model, beside] = [valueIn("model"), valueIn("beside")];
  const quality = valueIn("quality");
  const label = isBlocks(model) && quality !== "" ? `${model}, ${quality}` : model;
  const lanes = [{ label, model, blocks: isBlocks(model) }];
  if (beside === "\u0000static")
    lanes.push({ label: `${model}, one token per forward`, model, blocks: true, single: true });
  else if (beside !== "") lanes.push({ label: beside, model: beside, blocks: isBlocks(beside) });
  return lanes;
}

export const sendsContext = () => field("context").checked;

const number = (name) => (valueIn(name) === "" ? undefined : Number(valueIn(name)));

function denoising({ single, model }) {
  const blockLength = number("blockLength");
  if (single)
    return { blockLength, strategy: "low_confidence_static", steps: blockLength ?? cardOf(model).sdar.blockLength };
  const quality = valueIn("quality");
  if (quality !== "") return { blockLength, quality };
  const strategy = valueIn("strategy");
  const parameter = parameterOf[strategy];
  return { blockLength, strategy, [parameter]: number(parameter) };
}

/** The body of a request, without its prompt or messages. */
export function requestOf(lane, index) {
  const schema = checkSchema();
  return {
    model: lane.model,
    stream: true,
    stream_options: { include_usage: true },
    temperature: number("temperature"),
    max_tokens: number("maxTokens"),
    seed: number("seed"),
    // Who comes second must not find the first one's prompt computed.
    ...(index > 0 && { cache_salt: `beside-${index}` }),
    ...(schema !== undefined && {
      response_format: { type: "json_schema", json_schema: { name: "answer", schema, strict: true } },
    }),
    sdar: { tokens: true, usage: true, ...(lane.blocks && { drafts: true, ...denoising(lane) }) },
  };
}
