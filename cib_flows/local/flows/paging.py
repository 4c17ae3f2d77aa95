"""Markers, limits and flags of the lists' query parameters."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping

from .errors import unprocessable

__all__ = ["MAX_PLACE", "flag", "limit", "marker", "names", "place"]


MAX_PLACE = 2**62  # what the database can count


def marker(place: int) -> str:
    """An opaque text for ``place``, to be handed back for the next page."""
    return base64.urlsafe_b64encode(f"after:{place}".encode()).decode()


def place(query: Mapping[str, str]) -> int | None:
    """The place in the query's ``marker``; None without one.

    :raises Refusal: 422 for a marker that this service did not make
    """
    text = query.get("marker")
    if not text:
        return None
    try:
        kind, _, number = base64.urlsafe_b64decode(text.encode()).decode().partition(":")
        if kind == "after" and 0 <= int(number) < MAX_PLACE:
            return int(number)
    except (binascii.Error, ValueError):
        pass
    raise unprocessable(
        [{"loc": ["marker"], "msg": "the marker is not valid", "type": "value_error"}]
    )


def limit(query: Mapping[str, str], default: int, name: str = "limit") -> int:
    """The query's ``limit``, or what it is called, from 1 to 100.

    :raises Refusal: 422 otherwise
    """
    text = query.get(name, str(default))
    if text.isdecimal() and len(text) < 4 and 1 <= int(text) <= 100:
        return int(text)
    problem = {
        "loc": [name],
        "msg": "an integer from 1 to 100 is expected",
        "type": "value_error",
    }
    raise unprocessable([problem])


def flag(query: Mapping[str, str], name: str) -> bool:
    """A true or false query parameter; false when left out.

    :raises Refusal: 422 for anything else
    """
    text = query.get(name, "false").lower()
    if text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    message = "value could not be parsed to a boolean"
    raise unprocessable([{"loc": [name], "msg": message, "type": "type_error.bool"}])


def names(
    query: Mapping[str, str], parameter: str, known: Collection[str] | None = None
) -> set[str]:
    """The names in a comma-separated query parameter.

    :raises Refusal: 422 for a name that is not ``known``
    """
    found = {name.strip() for name in query.get(parameter, "").split(",") if name.strip()}
    for name in sorted(found - set(known)) if known is not None else ():
        message = f"{name!r} is not one of {', '.join(sorted(known or ()))}"
        raise unprocessable([{"loc": [parameter], "msg": message, "type": "value_error"}])
    return found
