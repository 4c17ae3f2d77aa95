"""Containers in a Globus Search index, so that those who do not know the endpoint find them.

An index is made once, by whoever keeps it; what is published there is a copy, and the catalogue stays
the truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cib_flows.catalogue import Catalogue
from cib_flows.errors import UsageError
from cib_flows.profiles import Globus
from cib_flows.services import explained

if TYPE_CHECKING:
    import globus_sdk

__all__ = ["publish_records", "search_containers", "search_entry"]

SUBJECT = "urn:cib-flows:container:"
WORDS = ("public", "all_authenticated_users")
PRINCIPAL = ("urn:globus:auth:identity:", "urn:globus:groups:id:")
SHOWN = ("container_id", "name", "tags", "path", "sha256", "bytes", "created_at", "endpoint_id")


def _search(globus: Globus) -> globus_sdk.SearchClient:
    import globus_sdk

    with explained("log in to Globus Search"):
        scopes = globus_sdk.SearchClient.scopes
        # made only where it is needed: a login then asks for this consent too
        return globus_sdk.SearchClient(app=globus.app, app_scopes=[scopes.search, scopes.ingest])


def search_entry(
    record: Mapping[str, Any], endpoint_id: str, visible_to: Sequence[str]
) -> dict[str, Any]:
    """What an index holds of one container. The same container at two endpoints is one subject
    with two entries.
    """
    spec, base = record.get("spec") or {}, record.get("base") or {}
    packages = record.get("packages") or {}
    content = {key: record[key] for key in SHOWN if record.get(key) is not None}
    content |= {
        "endpoint_id": endpoint_id,
        "base": str(base.get("image") or ""),
        "description": str(spec.get("description") or ""),
        "python": record.get("python"),
        "packages": [f"{name}=={version}" for name, version in sorted(packages.items())],
    }
    return {
        "subject": f"{SUBJECT}{record['container_id']}",
        "id": endpoint_id,
        "visible_to": list(visible_to),
        "content": content,
    }


def publish_records(
    catalogue: Catalogue,
    index: str,
    visible_to: Sequence[str],
    references: Iterable[str] | None = None,
) -> int:
    """Writes the records of ``references`` (default: the whole catalogue) to a search index, and
    returns how many. What was published of them before is replaced.

    ``visible_to`` says who may find them: ``public``, ``all_authenticated_users``, or the URNs of
    identities and groups. Raises ``UsageError`` for anything else.
    """
    for principal in visible_to:
        if principal not in WORDS and not principal.startswith(PRINCIPAL):
            raise UsageError(
                f"{principal!r} is nobody who could find a container.",
                hint=f"Say {' or '.join(WORDS)}, or give the URN of an identity or a group.",
            )
    if not visible_to:
        raise UsageError("Say who may find the containers.")
    if references is None:
        references = [str(row["container_id"]) for row in catalogue.list()]
    entries = [
        search_entry(catalogue.show(reference), catalogue.endpoint_id, visible_to)
        for reference in references
    ]
    client = _search(catalogue.globus)
    for start in range(0, len(entries), 100):
        document = {
            "ingest_type": "GMetaList",
            "ingest_data": {"gmeta": entries[start : start + 100]},
        }
        with explained(f"write to the search index {index}"):
            client.ingest(index, document)
    return len(entries)


def search_containers(
    globus: Globus, index: str, query: str, limit: int = 20
) -> list[dict[str, Any]]:
    """The containers in an index that fit the words of ``query``, best first, at most ``limit``."""
    client = _search(globus)
    with explained(f"search the index {index}"):
        answer = client.search(index, query, limit=limit)
    found = []
    for item in answer.get("gmeta") or []:
        if str(item.get("subject", "")).startswith(SUBJECT):
            found += [dict(entry["content"]) for entry in item.get("entries") or []]
    return found[:limit]
