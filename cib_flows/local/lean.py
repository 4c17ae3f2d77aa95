"""Imported first by the server's processes, so that they start quickly.

``jsonschema`` loads whatever it finds for the checking of formats. One such package, which others
bring along, reads a whole grammar of addresses, for seconds; no format is checked here.
"""

from __future__ import annotations

import sys

__all__ = ["give_back"]

_LEFT_OUT = "rfc3987_syntax"
sys.modules.setdefault(_LEFT_OUT, None)  # type: ignore[arg-type]


def give_back() -> None:
    """Let others import it, now that ``jsonschema`` has been."""
    if sys.modules.get(_LEFT_OUT, sys) is None:
        del sys.modules[_LEFT_OUT]
