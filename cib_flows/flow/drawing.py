"""``draw``: the definition in a file as a picture."""

from __future__ import annotations

from pathlib import Path

from cib_flows.errors import UsageError

from .diagram import diagram
from .source import Unparsable, read_source
from .svg import svg
from .text_drawings import dot, mermaid

__all__ = ["draw"]

FORMATS = {"svg": svg, "mermaid": mermaid, "dot": dot}


def draw(path: str | Path, form: str = "svg") -> str:
    """The definition in a JSON or YAML file, or in a whole flow document, as ``svg``, ``mermaid``
    or ``dot``.

    :raises UsageError: it cannot be read, or is no definition that could be drawn
    """
    if form not in FORMATS:
        raise UsageError(f"There is no format {form!r}; there are {', '.join(FORMATS)}.")
    try:
        value = read_source(path).value
    except Unparsable as problem:
        raise UsageError(
            f"{path} is no JSON or YAML: {problem}, at line {problem.position.line}."
        ) from None
    title = Path(path).stem
    if isinstance(value, dict) and "States" not in value and "definition" in value:
        title = str(value.get("title") or title)
        value = value["definition"]
    return FORMATS[form](diagram(value), title)
