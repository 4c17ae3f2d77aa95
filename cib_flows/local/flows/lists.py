"""The queries of the lists of flows and runs: which ones, in what order, how many at once."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from . import paging
from .errors import unprocessable

__all__ = ["ListQuery", "Order", "read_query"]

PAGE = 20
Order = list[tuple[str, bool]]


@dataclass(frozen=True)
class ListQuery:
    """``place`` is where the page before ended; None for the first page."""

    parameters: dict[str, str]
    place: int | None

    @property
    def size(self) -> int:
        name = "per_page" if "per_page" in self.parameters else "limit"
        return paging.limit(self.parameters, PAGE, name)

    @property
    def passed_over(self) -> int:
        """How many come before the page that ``page`` asks for."""
        text = self.parameters.get("page", "1")
        if not text.isdecimal() or len(text) > 7 or not 1 <= int(text) <= 1_000_000:
            raise _refused("page", "a whole number from 1 is expected")
        return (int(text) - 1) * self.size

    def marker(self, place: int) -> str:
        """An opaque text for the page that follows ``place``; it holds the query too."""
        state = json.dumps({"place": place, "query": self.parameters}, separators=(",", ":"))
        return base64.urlsafe_b64encode(state.encode()).decode()

    def order(self, fields: Mapping[str, str]) -> Order:
        """What to sort by, the first the most important, and whether descending; empty when
        nothing was said. ``fields`` gives what each field that may be named is called."""
        found = []
        for text in filter(None, self.parameters.get("orderby", "").split(",")):
            field, _, direction = text.strip().partition(" ")
            if field not in fields or direction.strip().upper() not in ("", "ASC", "DESC"):
                known = ", ".join(fields)
                raise _refused(
                    "orderby", f"{text!r} is not a field and ASC or DESC; fields are {known}"
                )
            found.append((fields[field], direction.strip().upper() == "DESC"))
        return found

    def roles(self, known: Collection[str]) -> set[str]:
        """The roles in ``filter_roles``, or in the older ``filter_role``; some are also known by
        their plural."""
        plural = {f"{name}s": name for name in known if not name.endswith("_owner")}
        wanted: set[str] = set()
        for parameter in ("filter_roles", "filter_role"):
            names = paging.names(self.parameters, parameter, {*known, *plural})
            wanted |= {plural.get(name, name) for name in names}
        return wanted

    def one_of(self, parameter: str, known: Collection[str] | None = None) -> set[str]:
        return paging.names(self.parameters, parameter, known)

    def holds(self, parameter: str, texts: Iterable[str | None]) -> bool:
        """Whether one of ``texts`` holds one of the parameter's, in any case; true without it."""
        wanted = [part.strip().casefold() for part in self._listed(parameter)]
        given = [text.casefold() for text in texts if text]
        return not wanted or any(part in text for part in wanted for text in given)

    def within(self, parameter: str) -> Callable[[str | None], bool]:
        """Whether a moment lies in the range of a parameter such as ``FROM,UNTIL``, either of which
        may be left out; what has no moment lies in none."""
        text = self.parameters.get(parameter)
        if not text:
            return lambda moment: True
        begin, _, end = text.partition(",")
        first, last = _moment(parameter, begin), _moment(parameter, end)

        def lies(text: str | None) -> bool:
            moment = _moment(parameter, text or "")
            return (
                moment is not None
                and (first is None or first <= moment)
                and (last is None or moment < last)
            )

        return lies

    def _listed(self, parameter: str) -> list[str]:
        return [part for part in self.parameters.get(parameter, "").split(",") if part.strip()]


def read_query(given: Sequence[tuple[str, str]]) -> ListQuery:
    """The query in a request's parameters; with a ``marker``, the one that it was made for.

    :raises Refusal: 422 for a marker that this service did not make
    """
    parameters: dict[str, str] = {}
    for name, value in given:
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    text = parameters.pop("marker", "") or parameters.pop("pagination_token", "")
    if not text:
        return ListQuery(parameters, None)
    try:
        state: Any = json.loads(base64.urlsafe_b64decode(text.encode()))
        place = int(state["place"])
        parameters = dict(state["query"])
        if not 0 <= place < paging.MAX_PLACE or not all(map(_is_text, parameters.values())):
            raise ValueError(text)
        return ListQuery(parameters, place)
    except (binascii.Error, ValueError, TypeError, KeyError):
        raise _refused("marker", "the marker is not valid") from None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _moment(parameter: str, text: str) -> datetime | None:
    if not text.strip():
        return None
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise _refused(parameter, f"{text!r} is not an ISO 8601 date and time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _refused(parameter: str, message: str) -> Exception:
    return unprocessable([{"loc": [parameter], "msg": message, "type": "value_error"}])
