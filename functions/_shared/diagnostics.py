"""What a build's log means: signatures of known causes.

Each row is ``(code, pattern, message, hint)``. The first line that any pattern fits decides, and of several
that fit it the upper row; ``{1}`` in a message is the pattern's first group. The tables themselves are in
:mod:`engine_causes` and :mod:`package_causes`.
"""

from __future__ import annotations

import re

from .engine_causes import ENGINE_CAUSES
from .package_causes import PACKAGE_CAUSES, WEAK_CAUSES
from .results import shorten

Row = tuple[str, str, str, str]

MAX_LINE_CHARS = 1000  # a program may print megabytes without an end of line
STRONG_ROWS: tuple[Row, ...] = (*ENGINE_CAUSES, *PACKAGE_CAUSES)
# A line of theirs counts only where no line of the others is.
ROWS: tuple[Row, ...] = (*STRONG_ROWS, *WEAK_CAUSES)
# Warnings that sound like causes, after which a build goes on.
HARMLESS = re.compile(
    r"Cache disabled - cache location|Converting SIF file to temporary sandbox|'nodev' mount option set on|"
    r"Retrying \(Retry\(total=[1-9]"
)


def _fill(message: str, found: re.Match[str]) -> str:
    for index, group in enumerate(found.groups(), start=1):
        message = message.replace(f"{{{index}}}", shorten(group or "", 160))
    return " ".join(message.split())


def diagnose(log: str) -> tuple[str, str, str]:
    """``(code, sentence, hint)`` for a failed build's log; ``build_failed`` without a guess when unknown.

    The first telling line counts: a name server that did not answer explains the packages that were then not
    found. A line that only says that something failed yields to one that says what.
    """
    lines = [line[:MAX_LINE_CHARS] for line in log.splitlines() if not HARMLESS.search(line)]
    for rows in (STRONG_ROWS, WEAK_CAUSES):
        best: tuple[int, re.Match[str], Row] | None = None
        for row in rows:
            compiled = re.compile(row[1])
            # a later row must be strictly earlier in the log
            for number, line in enumerate(lines if best is None else lines[: best[0]]):
                found = compiled.search(line)
                if found:
                    best = (number, found, row)
                    break
        if best is not None:
            _, found, (code, _, message, hint) = best
            return code, _fill(message, found), hint
    return (
        "build_failed",
        "The build failed for a reason that is not known here.",
        "The log's last lines are shown; the whole log is on the endpoint.",
    )
