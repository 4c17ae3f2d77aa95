"""The moments that flows compare and wait for."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

__all__ = ["timestamp"]


def timestamp(text: Any) -> datetime | None:
    """The moment an RFC 3339 text with a time zone names; None for anything else."""
    if not isinstance(text, str) or "T" not in text.upper():
        return None
    try:
        moment = datetime.fromisoformat(_fraction_of_six(text.upper().replace("Z", "+00:00")))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _fraction_of_six(text: str) -> str:
    # Python 3.10 reads fractions of three or six digits only.
    return re.sub(r"\.(\d+)", lambda match: "." + match.group(1)[:6].ljust(6, "0"), text)
