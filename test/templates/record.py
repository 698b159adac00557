"""Writes what Python's Jinja2 makes of the templates here, set up as transformers sets it up for chat templates.

    apt-get install python3-jinja2
    python3 test/templates/record.py

snippets.json: `outputs` are templates in short and what they write, null where Jinja2 refuses (to add one, put it there
with null); `unsupported` are some that only Jinja2 renders, with what the refusal must name. random.json: expressions put
together at random. conversations.json: random conversations through whole templates.
"""

import copy
import itertools
import json
import random
import sys
from datetime import datetime
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

here = Path(__file__).parent


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def never_constant(self, eval_ctx=None):
    raise jinja2.nodes.Impossible


# A slice that fails is refused when it runs, but is undefined where all of it is constant and computed ahead.
jinja2.nodes.Slice.as_const = never_constant


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return env


def render(source, messages, variables):
    """The output, or None where the template is refused, in parsing or in running."""
    # Jinja2's filter "indent" appends to a list that it is given.
    messages, variables = copy.deepcopy((messages, variables))
    try:
        given = {"tools": None, "documents": None, "add_generation_prompt": True, **variables}
        return environment().from_string(source).render(messages=messages, **given)
    except Exception:
        return None


def write(name, value):
    (here / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


values = """'' 'a' 'B c' ' x\\n' '😀é' 'aXbXc' '12' '-3.5' 0 1 -2 7 3.0 2.5 -0.5 1e20 true none nope [] [1,2,3] ['b','A']
[[1],[2,0]] (1,) (2,'x') {} {'a':1} {'b':[1],'a':'x'} xs d text emoji users users[0] range(4) messages[0].content
d.items() users|map(attribute='name') loop""".split()
values = [v for v in values if v != "'B" and v != "c'" and v != "'" and v != "x\\n'"] + ["'B c'", "' x\\n'"]
operators = "+ - * / // % ** ~ == != < <= > >= in and or is".split() + ["not in"]
filters = """abs capitalize center(5) count default('D') default('D',true) dictsort e first float groupby(0) indent(2) int items|list
join('-') last length list lower map('string')|list map('upper')|join('|') max min reject('none')|list replace('a','b') reverse|list
reverse round round(1) round(1,'floor') select|list select('string')|list slice(2)|list batch(2)|list sort sort(reverse=true)
string sum title trim tojson tojson(indent=2) unique|list upper urlencode wordcount truncate(3) truncate(8,true,'',0)""".split()
tests = """defined undefined none boolean true false integer float number string mapping sequence iterable callable lower upper
odd even divisibleby(2) eq(1) ne('a') lt(2) in([1,'a',none])""".split()
methods = """upper() lower() strip() split() split('X') splitlines() title() count('a') find('X') replace('a','b',1)
startswith('a') endswith(('c','x')) items() keys() get('a') get('z',0) index(1) isdigit() join(['p','q']) x nope a""".split()
subscripts = "[0] [-1] [1:] [:-1] [::-1] [::2] ['a'] [1:3] [5] [none] [1.0]".split()


def expressions(count, seed):
    pick = random.Random(seed)

    def one(depth):
        kind = pick.randrange(8) if depth else 0
        if kind < 2:
            return pick.choice(values)
        if kind == 2:
            return f"({one(depth - 1)} {pick.choice(operators[:-2])} {one(depth - 1)})"
        if kind == 3:
            return f"{one(depth - 1)} | {pick.choice(filters)}"
        if kind == 4:
            return f"({one(depth - 1)} is {pick.choice(['', 'not '])}{pick.choice(tests)})"
        if kind == 5:
            return f"({one(depth - 1)}).{pick.choice(methods)}"
        if kind == 6:
            return f"({one(depth - 1)}){pick.choice(subscripts)}"
        return f"({one(depth - 1)} if {one(depth - 1)} else {one(depth - 1)})"

    return ["{{ " + one(3) + " }}" for _ in range(count)]


contents = ["Hi", "", "  two  spaces ", "a\r\nb\r\n", "👍👨‍👩‍👧 naïve", "def f(x):\n    return x\n\n\tend", "<|im_end|>", "\n\n\n"]
contents += ["<think>\nhm\n</think>\n\n    indented", "a</think>\n\n\tb</think>\n  c", "<tool_response>\n1\n</tool_response>"]
odd_contents = [None, [{"type": "text", "text": "part"}], 7]
arguments = [{}, {"city": "Zürich", "days": [1, 2.5, True, None]}, '{"as": "text"}', {"a\"\\": "<&>\u2028😀"}]
tool_list = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {}}}}}]


def conversation(pick):
    """Messages mostly as people send them, now and then with something odd."""
    messages = [{"role": "system", "content": pick.choice(contents)}] if pick.random() < 0.4 else []
    for _ in range(pick.randrange(1, 7)):
        message = {"role": pick.choice(["user", "user", "assistant", "assistant", "tool"]), "content": pick.choice(contents)}
        if message["role"] == "assistant" and pick.random() < 0.3:
            call = {"name": "f", "arguments": pick.choice(arguments)}
            message["tool_calls"] = [pick.choice([call, {"type": "function", "function": call}])] * pick.randrange(1, 3)
        if message["role"] == "assistant" and pick.random() < 0.2:
            message["reasoning_content"] = pick.choice(contents)
        if pick.random() < 0.04:
            message["content"] = pick.choice(odd_contents)
        if pick.random() < 0.02:
            del message["content"]
        messages.append(message)
    variables = {"tools": tool_list} if pick.random() < 0.3 else {}
    if pick.random() < 0.3:
        variables["enable_thinking"] = pick.random() < 0.5
    return {"messages": messages, "variables": variables}


def main():
    snippets = json.loads((here / "snippets.json").read_text(encoding="utf-8"))
    messages, variables = snippets["messages"], snippets["variables"]
    snippets["outputs"] = {source: render(source, messages, variables) for source in snippets["outputs"]}
    write("snippets.json", snippets)

    sources = [f"{{{{ ({a}) {op} ({b}) }}}}" for a, op, b in itertools.product(values, operators[:-2], values)]
    sources += [f"{{{{ ({v}) | {f} }}}}" for v, f in itertools.product(values, filters)]
    sources += [f"{{{{ ({v}) is {t} }}}}" for v, t in itertools.product(values, tests)]
    sources += [f"{{{{ ({v}).{m} }}}}" for v, m in itertools.product(values, methods)]
    sources += [f"{{{{ ({v}){s} }}}}" for v, s in itertools.product(values, subscripts)]
    sources += expressions(20000, 2)
    chosen = random.Random(1).sample(sources, len(sources) if "--all" in sys.argv else 3000)
    outputs = {source: render(source, messages, variables) for source in chosen}
    # An object's address is another each time.
    write("random.json", {source: text for source, text in outputs.items() if " at 0x" not in (text or "")})

    pick = random.Random(3)
    conversations = [conversation(pick) for _ in range(150)]
    for one in conversations:
        one["outputs"] = {
            file.name: render(file.read_text(encoding="utf-8"), one["messages"], one["variables"])
            for file in sorted(here.glob("*.jinja"))
        }
    write("conversations.json", conversations)


if __name__ == "__main__":
    main()
