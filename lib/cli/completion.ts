// sdar completion: what a shell needs to complete the commands, made of the commands themselves.
import { Argument, Command } from "commander";
import { bashScript, fishScript, zshScript } from "./completion-scripts.js";
import { describeProgram } from "./completion-tree.js";

const scripts = { bash: bashScript, zsh: zshScript, fish: fishScript };
type Shell = keyof typeof scripts;

export function completionCommand(): Command {
  return new Command("completion")
    .description("Prints a script with which a shell completes the commands, their options and their values")
    .addArgument(new Argument("<shell>", "for which one").choices(Object.keys(scripts)))
    .addHelpText(
      "after",
      `
Examples:
  source <(sdar completion bash)                              # in ~/.bashrc
  source <(sdar completion zsh)                               # in ~/.zshrc, after compinit
  sdar completion fish > ~/.config/fish/completions/sdar.fish`,
    )
    .action((shell: Shell, _: object, command: Command) => {
      process.stdout.write(scripts[shell](describeProgram(command.parent as Command)));
    });
}
