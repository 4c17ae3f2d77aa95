"""A page of the list of flows: filtered, ordered, cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import paging
from .errors import unprocessable
from .roles import FLOW_PERMISSIONS

__all__ = ["page"]

PAGE = 20
ORDER = (
    "id",
    "scope_string",
    "flow_owners",
    "flow_administrators",
    "title",
    "created_at",
    "updated_at",
)
# What some of them are called in a flow's document.
ALIASES = {"scope_string": "globus_auth_scope", "flow_owners": "flow_owner"}

Document = dict[str, Any]


def page(shown: Iterable[Document], query: Mapping[str, str], orderby: Sequence[str]) -> Document:
    """Of the flows that the caller may see, those that the query asks for.

    :raises Refusal: 422 for a query that cannot be read
    """
    wanted = paging.names(query, "filter_roles", FLOW_PERMISSIONS)
    words = query.get("filter_fulltext", "").casefold().split()
    found = [
        document
        for document in shown
        if (not wanted or wanted & set(document["user_roles"])) and _has(document, words)
    ]
    # A stable sort by the last criterion first, so that the first one decides.
    for field, descending in reversed([_order(text) for text in orderby or ["updated_at DESC"]]):
        name = ALIASES.get(field, field)
        found.sort(key=lambda document: str(document[name]).casefold(), reverse=descending)
    first = paging.place(query) or 0
    size = paging.limit(query, PAGE)
    more = first + size < len(found)
    return {
        "flows": found[first : first + size],
        "limit": size,
        "has_next_page": more,
        "marker": paging.marker(first + size) if more else None,
    }


def _has(document: Document, words: list[str]) -> bool:
    texts = [document["title"], document["subtitle"], document["description"]]
    text = " ".join([*texts, *document["keywords"]]).casefold()
    return all(word in text for word in words)


def _order(text: str) -> tuple[str, bool]:
    field, _, direction = text.strip().partition(" ")
    if field not in ORDER or direction.upper() not in ("", "ASC", "DESC"):
        message = f"{text!r} is not a field and ASC or DESC; fields are {', '.join(ORDER)}"
        raise unprocessable([{"loc": ["orderby"], "msg": message, "type": "value_error"}])
    return field, direction.upper() == "DESC"
