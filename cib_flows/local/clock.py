"""Waiting for a moment of the clock on the wall, which goes on while a machine sleeps; the event
loop's own clock stands still then."""

from __future__ import annotations

import asyncio
import time

__all__ = ["LOOK_AGAIN", "reached"]

LOOK_AGAIN = 60.0


async def reached(moment: float, broken_off: asyncio.Event | None = None) -> bool:
    """Return when ``moment``, in seconds since 1970, has come; False when ``broken_off`` came
    before it."""
    event = broken_off or asyncio.Event()
    while (remaining := moment - time.time()) > 0:
        try:
            await asyncio.wait_for(event.wait(), min(remaining, LOOK_AGAIN))
            return False
        except asyncio.TimeoutError:
            pass
    return True
