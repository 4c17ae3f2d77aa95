"""Flow definitions on the client: checked, explained and drawn, without any service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drawing import draw
    from .findings import CODES, Finding, Remark
    from .linter import Report, lint, lint_definition

__all__ = ["CODES", "Finding", "Remark", "Report", "draw", "lint", "lint_definition"]

# Where each name is; imported when it is asked for, since the local Globus needs the checks of a
# definition only, and starts in a moment.
_PLACES = {
    "CODES": "findings",
    "Finding": "findings",
    "Remark": "findings",
    "Report": "linter",
    "draw": "drawing",
    "lint": "linter",
    "lint_definition": "linter",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
