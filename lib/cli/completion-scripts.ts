// Completions in the languages of three shells. All find the command in the words before the cursor, then tell options from
// values by the word before it.
import type { CompletedCommand, Values } from "./completion-tree.js";

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
const list = (texts: readonly string[]) => texts.map(quoted).join(" ");

/** Where values are of one kind: `sdar bench serve --weights` and the like. */
function byValues(commands: readonly CompletedCommand[]): { values: Values; places: string[] }[] {
  const groups = new Map<string, { values: Values; places: string[] }>();
  for (const { path, options } of commands) {
    for (const { names, values } of options) {
      if (!values) continue;
      const key = JSON.stringify(values);
      const group = groups.get(key) ?? { values, places: [] };
      group.places.push(...names.map((name) => `${path} ${name}`));
      groups.set(key, group);
    }
  }
  return [...groups.values()];
}

const paths = (commands: readonly CompletedCommand[]) => commands.slice(1).map(({ path }) => path);
/** The shells' `case` has alternatives between bars. */
const patterns = (texts: readonly string[]) => texts.map(quoted).join(" | ");

export function bashScript(commands: readonly CompletedCommand[]): string {
  const reply = ({ words, kind }: Values) => {
    const flag = { words: "", any: "", file: "-f ", folder: "-d " }[kind];
    const given = words.length > 0 ? `-W ${quoted(words.join(" "))} ` : "";
    if (flag + given === "") return "return";
    const names = flag === "" ? "" : "compopt -o filenames 2> /dev/null; ";
    return `${names}mapfile -t COMPREPLY < <(compgen ${flag}${given}-- "$cur"); return`;
  };
  const values = byValues(commands).map(({ values, places }) => `    ${patterns(places)}) ${reply(values)} ;;`);
  const cases = commands.map(({ path, subcommands, options, values }) => {
    const flags = options.flatMap(({ names }) => names).join(" ");
    const words = { words: [...subcommands.map(({ name }) => name), ...values.words], kind: values.kind };
    return `    ${quoted(path)})
      if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W ${quoted(flags)} -- "$cur"); return; fi
      ${reply(words)} ;;`;
  });
  return `# bash completion of sdar: source <(sdar completion bash)
_sdar() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} at=sdar i
  COMPREPLY=()
  # bash takes --option=value for three words.
  if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=\${COMP_WORDS[COMP_CWORD - 2]}; fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in
    ${patterns(paths(commands))}) at="$at \${COMP_WORDS[i]}" ;;
    esac
  done
  case "$at $prev" in
${values.join("\n")}
  esac
  case "$at" in
${cases.join("\n")}
  esac
}
complete -F _sdar sdar
`;
}

export function zshScript(commands: readonly CompletedCommand[]): string {
  const described = (name: string, description: string) => quoted(`${name}:${description}`);
  const reply = ({ words, kind }: Values) => {
    const parts = [
      ...(words.length > 0 ? [`compadd -- ${list(words)}`] : []),
      ...(kind === "file" ? ["_files"] : kind === "folder" ? ["_files -/"] : []),
    ];
    return parts.join("; ") || ":";
  };
  const values = byValues(commands).map(
    ({ values, places }) => `    (${patterns(places)}) ${reply(values)}; return ;;`,
  );
  const cases = commands.map(({ path, subcommands, options, values }) => {
    const flags = options.flatMap(({ names, description }) => names.map((name) => described(name, description)));
    const below = subcommands.map(({ name, description }) => described(name, description));
    return `    (${quoted(path)})
      options=(${flags.join(" ")})
      commands=(${below.join(" ")})
      if [[ \${words[CURRENT]} == -* ]]; then _describe -o option options; return; fi
      (( \${#commands} )) && _describe command commands
      ${reply(values)} ;;`;
  });
  return `#compdef sdar
# zsh completion of sdar: source <(sdar completion zsh)
_sdar() {
  local at=sdar i
  local -a options commands
  for ((i = 2; i < CURRENT; i++)); do
    case "$at \${words[i]}" in
    (${patterns(paths(commands))}) at="$at \${words[i]}" ;;
    esac
  done
  case "$at \${words[CURRENT - 1]}" in
${values.join("\n")}
  esac
  case "$at" in
${cases.join("\n")}
  esac
}
if [ "\${funcstack[1]}" = _sdar ]; then _sdar "$@"; else compdef _sdar sdar; fi
`;
}

export function fishScript(commands: readonly CompletedCommand[]): string {
  const lines: string[] = [];
  const folders = "(__fish_complete_directories)";
  for (const { path, subcommands, options, values } of commands) {
    const at = `complete -c sdar -n ${quoted(`__sdar_at ${path}`)}`;
    for (const { name, description } of subcommands)
      lines.push(`${at} -f -a ${quoted(name)} -d ${quoted(description)}`);
    for (const { names, description, values } of options) {
      const flags = names.map((name) => (name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
      lines.push(`${at} ${flags.join(" ")}${takes(values)} -d ${quoted(description)}`);
    }
    const words = [...values.words, ...(values.kind === "folder" ? [folders] : [])];
    if (words.length > 0) lines.push(`${at} -f -a ${quoted(words.join(" "))}`);
    else if (values.kind === "file") lines.push(`${at} -F`);
  }
  function takes(values: Values | undefined): string {
    if (!values) return "";
    if (values.kind === "file") return " -r -F";
    const words = [...values.words, ...(values.kind === "folder" ? [folders] : [])];
    return words.length > 0 ? ` -x -a ${quoted(words.join(" "))}` : " -x";
  }
  return `# fish completion of sdar: sdar completion fish > ~/.config/fish/completions/sdar.fish
function __sdar_at
  set -l at sdar
  for word in (commandline -opc)[2..-1]
    if contains -- "$at $word" ${list(paths(commands))}
      set at "$at $word"
    end
  end
  test "$at" = "$argv"
end
complete -c sdar -f
${lines.join("\n")}
`;
}
