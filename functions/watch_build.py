"""What people see while a run is under way: step, percent, and the build log from an offset on."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ._shared.results import run_step
from ._shared.run_folder import RunFolder
from ._shared.site import load_site

MAX_LOG_BYTES = 3000
MAX_JSON_BYTES = 6000


def watch_build(run_id: str, offset: int = 0) -> dict[str, Any]:
    """``state`` is ``waiting`` (no step has begun), ``running``, ``between`` (two steps) or ``finished``;
    ``log`` is the build log's text from byte ``offset`` on, ``next_offset`` where to go on. A reader far
    behind is moved to the last part.
    """
    return run_step("watch_build", lambda: _watch(run_id, offset))


def _watch(run_id: str, offset: int) -> dict[str, Any]:
    folder = RunFolder(load_site()["root"], run_id)
    try:
        status = folder.read("status.json")
    except (OSError, ValueError):
        status = {"state": "waiting", "current_step": "", "phase": "", "percent": 0}
    text, next_offset = _read_log(folder.log, max(0, int(offset)))
    started = status.get("started_at")
    return {
        "state": status["state"],
        "current_step": status["current_step"],
        "phase": status["phase"],
        "percent": status["percent"],
        "run_elapsed_s": round(time.time() - started, 1) if started else 0.0,
        "log": text,
        "next_offset": next_offset,
        "log_path": folder.log,
    }


def _read_log(path: str, offset: int) -> tuple[str, int]:
    """Whole lines from ``offset``; control characters that would move a terminal's cursor are left out."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as stream:
            start = max(offset, size - MAX_LOG_BYTES)
            if start > size:
                start = 0
            stream.seek(start)
            raw = stream.read(MAX_LOG_BYTES)
    except OSError:
        return "", offset
    full = len(raw) == MAX_LOG_BYTES
    while True:
        end = raw.rfind(b"\n") + 1 or (len(raw) if full else 0)
        text = raw[:end].decode("utf-8", "replace")
        clean = "".join(c for c in text if c in "\n\t" or (c.isprintable() and ord(c) < 0x10000))
        if len(json.dumps(clean)) <= MAX_JSON_BYTES:
            return clean, start + end
        # other scripts, and bytes that are no text, take up to six times their size in JSON
        raw, full = raw[: end // 2], True
