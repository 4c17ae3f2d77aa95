"""The phases of a build's ``%post``: what a watcher sees, and how long each took."""

from __future__ import annotations

import os

# phase -> percent of the whole run when it begins
PHASES = {
    "waiting": 5,
    "base": 8,
    "python": 10,
    "apt": 20,
    "conda": 30,
    "pip": 45,
    "payload": 65,
    "install": 67,
    "commands": 70,
    "image": 80,
}


def phase_seconds(exchange: str) -> dict[str, float]:
    """Seconds of each phase of a build that ends just now, by the files that mark their beginnings.

    ``lent`` was written before the build, and the recipe leaves ``began-<phase>`` for each of its phases; what
    comes before the first is ``base``. Times are those of one file system, so that no two clocks are compared.
    The numbers are for people: a recipe's own commands could forge them.
    """
    try:
        os.utime(exchange)
    except OSError:
        return {}
    marks = [("base", _written_at(os.path.join(exchange, "lent")))]
    marks += [(name, _written_at(os.path.join(exchange, f"began-{name}"))) for name in PHASES]
    ended = _written_at(exchange)
    begun = sorted((at, name) for name, at in marks if at is not None)
    if ended is None or not begun:
        return {}
    seconds: dict[str, float] = {}
    for (at, name), (until, _) in zip(begun, [*begun[1:], (ended, "")], strict=True):
        seconds[name] = round(max(0.0, until - at), 2)
    return seconds


def _written_at(path: str) -> float | None:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None
