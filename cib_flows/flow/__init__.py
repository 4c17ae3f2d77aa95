"""Flow definitions on the client: checked, explained and drawn, without any service."""

from __future__ import annotations

from .drawing import draw
from .findings import CODES, Finding, Remark
from .linter import Report, lint, lint_definition

__all__ = ["CODES", "Finding", "Remark", "Report", "draw", "lint", "lint_definition"]
