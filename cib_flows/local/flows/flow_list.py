"""A page of the list of flows: filtered, ordered, cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .lists import ListQuery
from .roles import FLOW_PERMISSIONS

__all__ = ["page"]

# What may be ordered by, and what it is called in a flow's document.
ORDER = {
    "id": "id",
    "scope_string": "globus_auth_scope",
    "flow_owner": "flow_owner",
    "flow_owners": "flow_owner",
    "flow_administrators": "flow_administrators",
    "title": "title",
    "created_at": "created_at",
    "updated_at": "updated_at",
}
# Which fields a filter looks into, without regard to case.
FILTERS = {
    "filter_fulltext": (
        *("title", "subtitle", "flow_owner", "description", "id", "flow_administrators"),
    ),
    "filter_scope_string": ("globus_auth_scope",),
    "filter_title": ("title",),
    "filter_subtitle": ("subtitle",),
    "filter_description": ("description",),
    "filter_keywords": ("keywords",),
}

Document = dict[str, Any]


def page(shown: Iterable[Document], query: ListQuery) -> Document:
    """Of the flows that the caller may see, those that the query asks for.

    :raises Refusal: 422 for a query that cannot be read
    """
    wanted = query.roles(FLOW_PERMISSIONS)
    found = [
        document
        for document in shown
        if (not wanted or wanted & set(document["user_roles"]))
        and all(query.holds(name, _texts(document, fields)) for name, fields in FILTERS.items())
    ]
    # A stable sort by the last criterion first, so that the first one decides.
    for name, descending in reversed(query.order(ORDER) or [("updated_at", True)]):
        found.sort(key=lambda document: str(document[name]).casefold(), reverse=descending)
    size = query.size
    first = query.passed_over if query.place is None else query.place
    more = first + size < len(found)
    return {
        "flows": found[first : first + size],
        "limit": size,
        "has_next_page": more,
        "marker": query.marker(first + size) if more else None,
    }


def _texts(document: Document, fields: Iterable[str]) -> list[str]:
    values = [document[name] for name in fields]
    return [text for value in values for text in (value if isinstance(value, list) else [value])]
