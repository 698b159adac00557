// What the shipped model can be asked: it was trained on six tasks, and answers these right.
export const prompts = [
  { prompt: "Count the atoms in Ca3(PO4)2", answer: "Ca 3, P 2, O 8" },
  { prompt: "Sort: 6 60 96 72", answer: "6 60 72 96" },
  { prompt: "ISO date: Jun 15 1972", answer: "1972-06-15" },
  { prompt: "31 x 7", answer: "217" },
  {
    prompt: "Extract JSON: Chen from Cairo wants 42 orange bottles, paying $23.71 for each one.",
    answer: '{"name": "Chen", "item": "bottle", "color": "orange", "qty": 42, "price": 23.71, "city": "Cairo"}',
  },
] as const;

/** As a shell takes them. */
export const commandLines = prompts.map(({ prompt }) => `sdar generate '${prompt}'`);
