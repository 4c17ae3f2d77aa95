"""What a run shows to anybody who can read its folder, without Globus: the three files that SemWES services keep.

``status.html`` is a page that refreshes itself, ``result.txt`` holds ``UNSET`` and then the outcome, and
``notifications.txt`` grows by a line whenever the run comes to another step or phase.
"""

from __future__ import annotations

import html
import os
import secrets
import time
from typing import Any

REFRESH_S = 5
UNSET = "UNSET\n"
PAGE_LOG_CHARS = 4000
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh}<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }}
progress {{ width: 100%; height: 1.2rem; }}
pre {{ background: #f2f2f2; padding: 1rem; overflow-x: auto; white-space: pre-wrap; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #eee; background: #161616; }} pre {{ background: #262626; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<p><progress max="100" value="{percent}" aria-label="progress">{percent} %</progress></p>
<p>{percent} %, {elapsed} since the run began. {state}</p>
<pre>{log}</pre>
</body>
</html>
"""


def status_page(status: dict[str, Any], log: str, now: float) -> str:
    """The page for a run's ``status.json`` and the end of its log; whatever a build printed is shown as text."""
    finished = status["state"] == "finished"
    place = status["current_step"] or "waiting"
    if status["phase"]:
        place += f": {status['phase']}"
    tail = log[-PAGE_LOG_CHARS:]
    shown = "".join(c for c in tail if c in "\n\t" or c.isprintable())
    minutes, seconds = divmod(int(max(0.0, now - status["started_at"])), 60)
    return PAGE.format(
        refresh="" if finished else f'<meta http-equiv="refresh" content="{REFRESH_S}">\n',
        title=html.escape(place),
        percent=int(status["percent"]),
        elapsed=f"{minutes} min {seconds} s",
        state="The run is over." if finished else "",
        log=html.escape(shown),
    )


def notification(status: dict[str, Any], now: float) -> str:
    """One line for ``notifications.txt``."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    words = [status["state"], status["current_step"], status["phase"]]
    return " ".join([stamp, f"{int(status['percent'])} %", *filter(None, words)]) + "\n"


def write_quickly(path: str, text: str) -> None:
    """Replace ``path`` whole, without waiting for the disk: the next tick writes it again."""
    aside = f"{path}.{secrets.token_hex(6)}"
    try:
        with open(aside, "w", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
        os.replace(aside, path)
    except OSError:
        pass  # what people watch must not end a build
