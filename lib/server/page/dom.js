// Elements from text alone: nothing that a model says becomes markup.

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/** An element with attributes and children, which are elements or texts; `undefined` and `false` leave an attribute out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (name === "onclick") element.addEventListener("click", value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** What a screen reader says when it is free; the same text twice is said twice. */
export function announce(text) {
  const region = byId("status");
  region.textContent = "";
  setTimeout(() => {
    region.textContent = text;
  }, 50);
}

export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
