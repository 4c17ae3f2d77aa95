"""Which entries a query finds.

The web service leaves matching to a text engine with scores and stemming; here every word of ``q``
must stand in the subject or in some text of the content, whatever its case. Filters, sorting and
term facets are exact. What is not done here (geographic filters, other facets, boosts that change
an order) is refused, never passed over.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cib_flows.local.search.errors import SearchError
from cib_flows.local.search.store import Entry

__all__ = ["Query", "read_query"]

MAX_LIMIT = 10_000
_FIELDS = {
    "@version", "@datatype", "q", "limit", "offset", "advanced", "filters", "facets", "sort",
    "bypass_visible_to", "filter_principal_sets", "marker", "post_facet_filters",
}  # fmt: skip

Test = Callable[[Entry], bool]


class Query:
    """A query that was checked."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        unknown = sorted(set(body) - _FIELDS)
        if unknown:
            raise SearchError.bad_request(f"{unknown[0]}: not a field that this service knows")
        self.limit = _number(body, "limit", 10, MAX_LIMIT)
        self.offset = _number(body, "offset", 0, MAX_LIMIT - 1)
        text = body.get("q", "")
        if not isinstance(text, str):
            raise SearchError.bad_request("q: must be a string")
        self._words = [word.strip('"').lower() for word in text.split() if word != "*"]
        self._filters = [_filter(item, "filters") for item in _list(body, "filters")]
        self._later = [
            _filter(item, "post_facet_filters") for item in _list(body, "post_facet_filters")
        ]
        self._sort = [_sort_key(item) for item in _list(body, "sort")]
        self._facets = [_facet(item) for item in _list(body, "facets")]

    def find(self, entries: list[Entry]) -> tuple[list[Entry], list[dict[str, Any]]]:
        """The entries that match, in order, and the facets over them."""
        found = [entry for entry in entries if self._matches(entry)]
        facets = [facet(found) for facet in self._facets]
        found = [entry for entry in found if all(test(entry) for test in self._later)]
        for field, backwards in reversed(self._sort):
            found.sort(key=lambda entry: _rank(entry, field), reverse=backwards)
        return found, facets

    def _matches(self, entry: Entry) -> bool:
        if self._words:
            text = " ".join([entry.subject, *map(str, _texts(entry.content))]).lower()
            if not all(word in text for word in self._words):
                return False
        return all(test(entry) for test in self._filters)


def read_query(body: Any) -> Query:
    """Raises :class:`SearchError` (400) for a query that makes no sense."""
    if not isinstance(body, Mapping):
        raise SearchError.bad_request("The query must be a JSON object")
    return Query(body)


def _number(body: Mapping[str, Any], name: str, default: int, largest: int) -> int:
    value = body.get(name, default)
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise SearchError.bad_request(f"{name}: must be a number from 0 to {largest}")
    return value


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise SearchError.bad_request(f"{name}: must be a list")
    return value


def _texts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None:
        yield value


def _values(value: Any, field: list[str]) -> list[Any]:
    """What a dotted field names; in lists, of each element."""
    if isinstance(value, list):
        return [found for item in value for found in _values(item, field)]
    if not field:
        return [value]
    if not isinstance(value, Mapping):
        return []
    # A dot may be part of a key, written with a backslash before it.
    return _values(value[field[0]], field[1:]) if field[0] in value else []


def _field(item: Mapping[str, Any], where: str) -> list[str]:
    name = item.get("field_name")
    if not isinstance(name, str) or not name:
        raise SearchError.bad_request(f"{where}: field_name is required")
    return [part.replace("\0", ".") for part in name.replace("\\.", "\0").split(".")]


def _filter(item: Any, where: str) -> Test:
    if not isinstance(item, Mapping):
        raise SearchError.bad_request(f"{where}: each filter must be an object")
    kind = item.get("type")
    if kind in ("and", "or", "not"):
        nested = item.get("filters") if kind != "not" else [item.get("filter")]
        if not isinstance(nested, list) or not nested:
            raise SearchError.bad_request(f"{where}: {kind} needs filters")
        tests = [_filter(part, where) for part in nested]
        if kind == "not":
            return lambda entry: not tests[0](entry)
        combine = all if kind == "and" else any
        return lambda entry: combine(test(entry) for test in tests)
    field = _field(item, where)
    if kind == "exists":
        return lambda entry: any(found is not None for found in _values(entry.content, field))
    if kind in ("match_any", "match_all"):
        wanted = item.get("values")
        if not isinstance(wanted, list) or not wanted:
            raise SearchError.bad_request(f"{where}: {kind} needs values")
        combine = any if kind == "match_any" else all
        return lambda entry: combine(value in _values(entry.content, field) for value in wanted)
    if kind == "like":
        pattern = item.get("value")
        if not isinstance(pattern, str):
            raise SearchError.bad_request(f"{where}: like needs a value")
        import fnmatch

        return lambda entry: any(
            isinstance(found, str) and fnmatch.fnmatchcase(found, pattern)
            for found in _values(entry.content, field)
        )
    if kind == "range":
        ranges = item.get("values")
        if not isinstance(ranges, list) or not all(isinstance(part, Mapping) for part in ranges):
            raise SearchError.bad_request(f"{where}: range needs values with from and to")
        return lambda entry: any(
            _within(found, part) for found in _values(entry.content, field) for part in ranges
        )
    raise SearchError.bad_request(f"{where}: the type {kind!r} is not one that this service knows")


def _within(value: Any, limits: Mapping[str, Any]) -> bool:
    try:
        low, high = limits.get("from", "*"), limits.get("to", "*")
        return bool((low == "*" or value >= low) and (high == "*" or value <= high))
    except TypeError:
        return False


def _sort_key(item: Any) -> tuple[list[str], bool]:
    if not isinstance(item, Mapping) or item.get("order", "asc") not in ("asc", "desc"):
        raise SearchError.bad_request("sort: each needs a field_name and an order, asc or desc")
    return _field(item, "sort"), item.get("order") == "desc"


def _rank(entry: Entry, field: list[str]) -> tuple[int, float, str]:
    """Numbers before texts before nothing, each in its own order."""
    found = _values(entry.content, field)
    if not found or found[0] is None:
        return (2, 0.0, "")
    if isinstance(found[0], (int, float)):
        return (0, float(found[0]), "")
    return (1, 0.0, found[0] if isinstance(found[0], str) else json.dumps(found[0]))


def _facet(item: Any) -> Callable[[list[Entry]], dict[str, Any]]:
    if not isinstance(item, Mapping) or item.get("type", "terms") != "terms":
        raise SearchError.bad_request("facets: only terms facets are known here")
    field = _field(item, "facets")
    name = str(item.get("name") or item["field_name"])
    size = _number(item, "size", 10, MAX_LIMIT)

    def count(entries: list[Entry]) -> dict[str, Any]:
        terms = Counter(
            json.dumps(value)
            for entry in entries
            for value in dict.fromkeys(map(_frozen, _values(entry.content, field)))
        )
        buckets = [
            {
                "@datatype": "GBucket",
                "@version": "2017-09-01",
                "value": json.loads(term),
                "count": n,
            }
            for term, n in terms.most_common(size)
        ]
        return {
            "@datatype": "GFacetResult",
            "@version": "2017-09-01",
            "name": name,
            "buckets": buckets,
        }

    return count


def _frozen(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else json.dumps(value)
