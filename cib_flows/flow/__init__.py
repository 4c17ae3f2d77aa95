"""Flow definitions on the client: checked, explained, drawn and put together, without any service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compose_part import Part
    from .composer import Composition, compose, contained
    from .drawing import draw
    from .findings import CODES, Finding, Remark
    from .linter import Report, lint, lint_definition

__all__ = [
    "CODES",
    "Composition",
    "Finding",
    "Part",
    "Remark",
    "Report",
    "compose",
    "contained",
    "draw",
    "lint",
    "lint_definition",
]

# Where each name is; imported when it is asked for, since the local Globus needs the checks of a
# definition only, and starts in a moment.
_PLACES = {
    "CODES": "findings",
    "Composition": "composer",
    "Finding": "findings",
    "Part": "compose_part",
    "Remark": "findings",
    "Report": "linter",
    "compose": "composer",
    "contained": "composer",
    "draw": "drawing",
    "lint": "linter",
    "lint_definition": "linter",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
