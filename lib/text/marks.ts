// Combining marks in canonical order, before the runtime's normalization: its insertion sort is quadratic in the marks that
// follow one character, and a stranger may send a hundred thousand.

/** Runs that the runtime sorts quickly enough. */
const longRun = /\p{M}{33,}/gu;

/** The same text for every Unicode normalization form, with long runs of marks in canonical order. */
export const sortMarks = (text: string): string => text.replace(longRun, sortRun);

function sortRun(run: string): string {
  const marks = Array.from(run, (mark) => [...mark.normalize("NFD")]).flat();
  const classes = new CombiningClasses();
  for (const mark of new Set(marks)) classes.add(mark);
  const sorted: string[] = [];
  // By class from the last starter on; within a class the order stays.
  let buckets: string[][] = [];
  const flush = () => {
    for (const bucket of buckets) for (const mark of bucket ?? []) sorted.push(mark);
    buckets = [];
  };
  for (const mark of marks) {
    const rank = classes.rankOf(mark);
    if (rank < 0) {
      flush();
      sorted.push(mark);
    } else {
      buckets[rank] ??= [];
      buckets[rank].push(mark);
    }
  }
  flush();
  return sorted.join("");
}

/** Two marks of different classes, neither of them 0: which of both comes first is what NFD tells. */
const low = "\u0334";
const high = "\u0345";
const reorders = (a: string, b: string) => a !== b && (a + b).normalize("NFD") === b + a;

/** The canonical combining classes of some characters, found by comparing them: the runtime does not tell them. */
class CombiningClasses {
  /** one character of each class, ascending */
  readonly #classes: string[] = [];
  readonly #sameClass = new Map<string, string>();
  #ranks: Map<string, number> | undefined;

  add(character: string): void {
    if (!reorders(character, low) && !reorders(high, character)) return; // a starter: it stays where it is
    let from = 0;
    let to = this.#classes.length;
    while (from < to) {
      const middle = (from + to) >> 1;
      const other = this.#classes[middle] as string;
      if (reorders(character, other)) from = middle + 1;
      else if (reorders(other, character)) to = middle;
      else {
        this.#sameClass.set(character, other);
        return;
      }
    }
    this.#classes.splice(from, 0, character);
    this.#sameClass.set(character, character);
  }

  /** Ascending with the class; -1 for starters. Once all are added. */
  rankOf(character: string): number {
    this.#ranks ??= new Map([...this.#sameClass].map(([each, same]) => [each, this.#classes.indexOf(same)] as const));
    return this.#ranks.get(character) ?? -1;
  }
}
