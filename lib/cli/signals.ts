// How a command ends by a signal.

let interrupted: (() => void) | undefined;

/** The first Ctrl-C is the command's own; the next one ends the process as usual. */
export function onInterrupt(act: () => void): void {
  interrupted = act;
}

/** An end by a signal clears up as an end by exit does, whoever else listens to the signal. */
export function exitOnSignals(): void {
  for (const [name, number] of Object.entries({ SIGHUP: 1, SIGINT: 2, SIGTERM: 15 })) {
    process.on(name, () => {
      const act = name === "SIGINT" ? interrupted : undefined;
      interrupted = undefined;
      if (act) act();
      else process.exit(128 + number);
    });
  }
}
