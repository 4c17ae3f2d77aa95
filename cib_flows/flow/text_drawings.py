"""A drawing as Mermaid or as Graphviz's DOT, for documents that render them."""

from __future__ import annotations

from .diagram import Arrow, Box, Diagram

__all__ = ["dot", "mermaid"]

_FILLS = {
    "Action": "#e6f1fb",
    "Choice": "#fdf4d8",
    "ExpressionEval": "#f0eefb",
    "Pass": "#f0eefb",
    "Wait": "#e6f6ef",
    "CreateWebInput": "#e6f6ef",
    "AwaitWebInput": "#e6f6ef",
    "Fail": "#fbe4e4",
}


# --- Mermaid --------------------------------------------------------------------------------------


def mermaid(content: Diagram, title: str) -> str:
    """A Mermaid flowchart."""
    numbers = {name: f"s{number}" for number, name in enumerate(content.boxes)}
    lines = ["flowchart TD", f"    accTitle: {_one_line(title)}", "    start((&nbsp;))"]
    lines += [f"    {numbers[name]}{_mermaid_box(box)}" for name, box in content.boxes.items()]
    lines.append(f"    start --> {numbers[content.start]}")
    lines += [
        f"    {numbers[arrow.source]} {_mermaid_arrow(arrow)} {numbers[arrow.target]}"
        for arrow in content.arrows
    ]
    lines.append("    classDef failing stroke:#b83232")
    lines += [f"    classDef {kind} fill:{fill}" for kind, fill in _FILLS.items()]
    lines.append("    classDef start fill:#16202a")
    lines.append("    class start start")
    for kind in _FILLS:
        lines += _class([numbers[n] for n, box in content.boxes.items() if box.kind == kind], kind)
    lines += _class([numbers[n] for n, box in content.boxes.items() if box.fails], "failing")
    return "\n".join(lines) + "\n"


def _class(names: list[str], style: str) -> list[str]:
    return [f"    class {','.join(names)} {style}"] if names else []


def _mermaid_box(box: Box) -> str:
    text = f'"<b>{_mermaid_text(box.name)}</b><br/>{_mermaid_text(box.subtitle)}"'
    if box.kind == "Choice":
        return "{{" + text + "}}"
    if box.ends:
        return f"([{text}])"
    return f"[{text}]" if box.fails else f"({text})"


def _mermaid_arrow(arrow: Arrow) -> str:
    line = "-.->" if arrow.kind == "catch" else "-->"
    return f'{line}|"{_mermaid_text(arrow.label)}"|' if arrow.label else line


def _mermaid_text(text: str) -> str:
    """Every sign that could mean something to Mermaid or to HTML, by its number."""
    return "".join(
        sign if sign.isalnum() or sign in " _.,-" else f"#{ord(sign)};" for sign in _one_line(text)
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- Graphviz -------------------------------------------------------------------------------------


def dot(content: Diagram, title: str) -> str:
    """A Graphviz digraph."""
    lines = [
        f"digraph {_quoted(title)} {{",
        '    graph [fontname="Helvetica" nodesep=0.3 ranksep=0.4]',
        '    node [fontname="Helvetica" fontsize=11 shape=box style="rounded,filled"'
        ' fillcolor="#f3f5f7"]',
        '    edge [fontname="Helvetica" fontsize=10 color="#5b6975"]',
        '    " start" [shape=circle style=filled fillcolor="#16202a" label="" width=0.15]',
    ]
    for box in content.boxes.values():
        values = [f"label={_quoted(box.name + chr(10) + box.subtitle)}"]
        values.append(f'fillcolor="{_FILLS.get(box.kind, "#f3f5f7")}"')
        if box.kind == "Choice":
            values.append('shape=hexagon style="filled"')
        if box.ends:
            values.append("peripheries=2")
        if box.fails:
            values.append('color="#b83232"')
        if box.comment:
            values.append(f"tooltip={_quoted(box.comment)}")
        lines.append(f"    {_quoted(box.name)} [{' '.join(values)}]")
    lines.append(f'    " start" -> {_quoted(content.start)}')
    for arrow in content.arrows:
        values = [f"label={_quoted(arrow.label)}"] if arrow.label else []
        if arrow.kind == "catch":
            values.append("style=dashed")
        if content.boxes[arrow.target].fails:
            values.append('color="#b83232"')
        style = f" [{' '.join(values)}]" if values else ""
        lines.append(f"    {_quoted(arrow.source)} -> {_quoted(arrow.target)}{style}")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    lines = [line.replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n")]
    return '"' + "\\n".join(lines) + '"'
