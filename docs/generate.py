"""Write the parts of these pages that follow from the code: run it after changing a field, state or code.

    python docs/generate.py            # rewrite what is out of date
    python docs/generate.py --check    # change nothing; exit with 1 and name the pages that are

A page marks such a part with ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``; the table ``PAGES`` below
says what makes it. What only a person can say about a code or key stands in ``meanings.yaml``, which must
cover exactly what the code has.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
# also from a checkout in which nothing is installed
sys.path[:0] = [str(ROOT), str(DOCS)]

import click  # noqa: E402
import sentences  # noqa: E402
import yaml  # noqa: E402

from benchmarks import build_report  # noqa: E402
from cib_flows.cli import main as cli  # noqa: E402
from cib_flows.flow.describe import rule_text  # noqa: E402
from cib_flows.functions._shared import site  # noqa: E402
from cib_flows.functions._shared.diagnostics import ROWS  # noqa: E402
from cib_flows.functions._shared.results import ERROR_CODES  # noqa: E402
from cib_flows.functions._shared.spec_check import check_spec  # noqa: E402
from cib_flows.functions._shared.spec_words import SpecRefused  # noqa: E402

FLOW = ROOT / "flows" / "build_container"
PUBLISH_FLOW = ROOT / "flows" / "publish_container"
Json = dict[str, Any]


class Stale(Exception):
    """``meanings.yaml`` and the code do not speak of the same things."""


def read_json(path: Path) -> Json:
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content


def meanings(section: str, wanted: Iterable[str]) -> Mapping[str, Any]:
    """A section of ``meanings.yaml``; raises ``Stale`` unless its keys are exactly ``wanted``."""
    given: Mapping[str, Any] = yaml.safe_load((DOCS / "meanings.yaml").read_text("utf-8"))[section]
    if odd := sorted(set(given) ^ set(wanted)):
        raise Stale(f"docs/meanings.yaml, {section}, and the code differ in: {', '.join(odd)}")
    return given


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(headings)
    lines = [heads, ["---"] * len(heads), *(list(row) for row in rows)]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def code(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


# --- spec.md ---------------------------------------------------------------------------------------


def spec_fields(flow: Path = FLOW) -> str:
    schema = read_json(flow / "input_schema.json")
    rows = list(_fields(schema, ""))
    return table(("Field", "Type", "Default", "Limits", "Meaning"), rows)


def _fields(schema: Json, prefix: str) -> Iterable[list[str]]:
    required = schema.get("required", [])
    names: list[str] = schema.get("propertyOrder") or list(schema["properties"])
    for name in names:
        field = schema["properties"][name]
        default = "**required**" if name in required else ""
        if "default" in field:
            default = code(field["default"])
        yield [code(prefix + name), _type_of(field), default, _limits(field), _said(field)]
        if "properties" in field:
            yield from _fields(field, f"{prefix}{name}.")


def _type_of(field: Json) -> str:
    if "enum" in field:
        return "one of " + ", ".join(code(value) for value in field["enum"])
    if field["type"] == "array":
        return f"list of {field['items']['type']}s"
    if isinstance(field.get("additionalProperties"), dict):
        return f"object of {field['additionalProperties']['type']}s"
    return str(field["type"])


def _limits(field: Json) -> str:
    said = []
    if "maxItems" in field:
        said.append(f"{field['maxItems']} entries")
    if "maxProperties" in field:
        said.append(f"{field['maxProperties']} variables")
    for inner in (field, field.get("items", {}), field.get("additionalProperties", {})):
        if isinstance(inner, dict) and "maxLength" in inner:
            each = " each" if inner is not field else ""
            said += [f"{inner['maxLength']} characters{each}"]
    return ", ".join(said)


def _said(field: Json) -> str:
    text = str(field.get("description", field.get("title", "")))
    return text if "format" not in field else f"{text} (form: {code(field['format'])})"


def refusals() -> str:
    """What ``check_spec`` says of wrong specs, so that the page cannot promise another sentence."""
    rows = []
    for given in yaml.safe_load((DOCS / "meanings.yaml").read_text("utf-8"))["refused_specs"]:
        spec = {"name": "x", "base": {"image": "python:3.11-slim"}, **given}
        shown = json.dumps(given, ensure_ascii=False)[1:-1]
        try:
            check_spec(spec)
        except SpecRefused as refused:
            rows.append([code(shown), refused.message])
        else:
            raise Stale(f"docs/meanings.yaml, refused_specs: {shown} is accepted")
    return table(("Given", "Answer"), rows)


# --- flow.md ---------------------------------------------------------------------------------------


def flow_graph(flow: Path = FLOW) -> str:
    states = read_json(flow / "definition.json")["States"]
    lines = ["```mermaid", "flowchart TD"]
    for name, state in states.items():
        lines.append(f"    {name}{_shape(name, state)}")
    for name, state in states.items():
        for target, label in _edges(state):
            words = label.replace('"', "#quot;").replace("<", "#lt;")
            arrow = f'-->|"{words}"|' if words else "-->"
            lines.append(f"    {name} {arrow} {target}")
        lines += [f"    {name} -.-> {catcher['Next']}" for catcher in state.get("Catch", [])]
    failing = [name for name, state in states.items() if state["Type"] == "Fail"]
    lines += [
        "    classDef failing stroke-width:3px,stroke-dasharray:4 2",
        f"    class {','.join(failing)} failing",
    ]
    return "\n".join([*lines, "```"])


def _shape(name: str, state: Json) -> str:
    if state["Type"] == "Action":
        return f'["{name}<br>{_called(state)}"]'
    opening, closing = {"Choice": ("{", "}"), "Fail": ("([", "])")}.get(state["Type"], ("(", ")"))
    return f'{opening}"{name}"{closing}'


def _called(state: Json) -> str:
    tasks = state["Parameters"].get("tasks")
    if not tasks:
        return "Globus Transfer"
    return str(tasks[0]["function_id.$"]).rsplit(".", 1)[-1]


def _edges(state: Json) -> Iterable[tuple[str, str]]:
    for rule in state.get("Choices", []):
        yield rule["Next"], rule_text({key: rule[key] for key in rule if key != "Next"})
    if "Default" in state:
        yield state["Default"], "otherwise"
    if "Next" in state:
        yield state["Next"], ""


def flow_states(flow: Path = FLOW) -> str:
    rows = []
    for name, state in read_json(flow / "definition.json")["States"].items():
        does, wait = state.get("Comment", ""), state.get("WaitTime")
        if state["Type"] == "Choice":
            does = "; ".join(f"{label}: {code(target)}" for target, label in _edges(state))
        elif state["Type"] == "Fail":
            does = state.get("Cause") or f"Ends with what stands at {code(state['CausePath'])}."
        calls = code(_called(state)) if state["Type"] == "Action" else ""
        gets = ""
        if calls and "tasks" in state["Parameters"]:
            words = state["Parameters"]["tasks"][0]["kwargs"]
            gets = ", ".join(code(word.removesuffix(".$")) for word in words)
        rows.append([code(name), state["Type"], calls, gets, f"{wait} s" if wait else "", does])
    return table(("State", "Type", "Calls", "with", "Waits at most", "What it is for"), rows)


def function_pages() -> str:
    parts = []
    for name, signature, said in sentences.functions(ROOT / "functions"):
        parts.append(f"### {name}\n\n```python\n{signature}\n```\n\n{said}")
    return "\n\n".join(parts)


# --- errors.md -------------------------------------------------------------------------------------


def error_codes() -> str:
    known = meanings("error_codes", ERROR_CODES)
    said = sentences.by_code(ROOT / "functions")
    for known_code, _, message, hint in ROWS:
        said.setdefault(known_code, []).append(sentences.Sentence(message, hint))
    parts = []
    for name in sorted(known):
        lines = [f"### {name}", "", known[name]]
        shown = sorted({(re.sub(r"(\{\d\})+", "…", s.message), s.hint) for s in said.get(name, [])})
        if shown:
            lines.append("")
        lines += [f"- {message}{f' *{hint}*' if hint else ''}" for message, hint in shown]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def signatures() -> str:
    rows = [
        [f"`` {pattern} ``", f"[{name}](#{name})", re.sub(r"(\{\d\})+", "…", message)]
        for name, pattern, message, _ in ROWS
    ]
    return table(("When a line of the log has", "Code", "Sentence"), rows)


# --- site-profile.md -------------------------------------------------------------------------------


def site_keys() -> str:
    known = meanings("site_keys", site.SITE_KEYS)
    words = {
        bool: "true or false",
        str: "text",
        dict: "object",
        list: "list of texts",
        int: "whole number",
        float: "number",
    }
    rows = []
    for key, types in site.SITE_KEYS.items():
        kinds = " or ".join(
            words[kind] for kind in types if kind is not type(None) and kind is not float
        )
        kinds = "number" if float in types else kinds
        about = known[key]
        rows.append([code(key), kinds, about["default"], about["meaning"]])
    return table(("Key", "Type", "Default", "Meaning"), rows)


# --- cli.md ----------------------------------------------------------------------------------------


def command_table() -> str:
    return table(("Command", "What it does"), _commands(cli, "cib-flows"))


def _commands(group: click.Group, path: str) -> Iterable[list[str]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        elif command is not None:
            words = [
                p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)
            ]
            yield [code(" ".join([path, name, *words])), command.get_short_help_str(90)]


# --- benchmarks.md ---------------------------------------------------------------------------------


def measured_builds() -> Json:
    return read_json(ROOT / "benchmarks" / "measured" / "build_speed.json")


def build_speed() -> str:
    parts = []
    for case in measured_builds()["cases"]:
        parts.append(f"**{case['case']}**\n\n{table(build_report.HEADS, build_report.rows(case))}")
        parts.append(build_report.sentence(case))
    return "\n\n".join(parts)


def build_phases() -> str:
    rows = [
        [case["case"], *row]
        for case in measured_builds()["cases"]
        for row in build_report.phase_rows(case)
    ]
    return table(("case", "build", *build_report.PHASES), rows)


def build_picture() -> str:
    return build_report.picture(measured_builds()["cases"])


# --- local-globus.md -------------------------------------------------------------------------------


def client_calls() -> str:
    """What tests/local/test_client_calls.py and tests/clients make."""
    given: Mapping[str, Any] = yaml.safe_load((DOCS / "client-calls.yaml").read_text("utf-8"))
    rows = [
        [package, code(client), ", ".join(code(call) for call in calls)]
        for package, clients in given.items()
        for client, calls in clients.items()
    ]
    return table(("Package", "Client", "Calls"), rows)


# --- the pages -------------------------------------------------------------------------------------

PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "spec.md": {"fields": spec_fields, "refusals": refusals},
    "flow.md": {"graph": flow_graph, "states": flow_states, "functions": function_pages},
    "publish.md": {
        "publish-fields": partial(spec_fields, PUBLISH_FLOW),
        "publish-graph": partial(flow_graph, PUBLISH_FLOW),
        "publish-states": partial(flow_states, PUBLISH_FLOW),
    },
    "errors.md": {"codes": error_codes, "signatures": signatures},
    "site-profile.md": {"keys": site_keys},
    "cli.md": {"commands": command_table},
    "local-globus.md": {"calls": client_calls},
    "benchmarks.md": {"build-speed": build_speed, "build-phases": build_phases},
}
PICTURES: dict[str, Callable[[], str]] = {"build-speed.svg": build_picture}


def filled(text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """``text`` with every marked part made anew; raises ``Stale`` for marks without a maker, or the reverse."""
    marked = re.findall(r"<!-- begin: (\S+) -->", text)
    if sorted(marked) != sorted(parts):
        raise Stale(f"the page marks {marked}, and docs/generate.py makes {sorted(parts)}")
    for name, make in parts.items():
        begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not closed:
            raise Stale(f"the page does not end its part '{name}'")
        text = f"{before}{begin}{make()}\n{end}{after}"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="generate.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if a page is out of date"
    )
    check = parser.parse_args(arguments).check
    stale = []
    for name, parts in PAGES.items():
        page = DOCS / name
        before = page.read_text(encoding="utf-8")
        try:
            after = filled(before, parts)
        except Stale as problem:
            print(f"docs/{name}: {problem}", file=sys.stderr)
            return 1
        if after != before:
            stale.append(name)
            if not check:
                page.write_text(after, encoding="utf-8")
    for name, draw in PICTURES.items():
        picture, drawn = DOCS / name, draw()
        if not picture.exists() or picture.read_text(encoding="utf-8") != drawn:
            stale.append(name)
            if not check:
                picture.write_text(drawn, encoding="utf-8")
    for name in stale:
        print(
            f"docs/{name} {'is out of date; run: python docs/generate.py' if check else 'was rewritten'}"
        )
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
