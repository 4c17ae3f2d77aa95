"""Containers in a Globus Search index, so that those who do not know the endpoint find them.

An index is made once, by whoever keeps it; what is published there is a copy, and the catalogue stays
the truth.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cib_flows.catalogue import Catalogue
from cib_flows.errors import NotFoundError, ServiceError, UsageError
from cib_flows.profiles import Globus
from cib_flows.services import explained

if TYPE_CHECKING:
    import globus_sdk

__all__ = [
    "publish_records",
    "search_containers",
    "search_entry",
    "withdraw_missing",
    "withdraw_records",
]

SUBJECT = "urn:cib-flows:container:"
WORDS = ("public", "all_authenticated_users")
PRINCIPAL = ("urn:globus:auth:identity:", "urn:globus:groups:id:")
MAX_QUERY_CHARS = 1000
TASK_LIMIT_S = 300.0
TEXTS = ("container_id", "name", "endpoint_id", "path")
SHOWN = ("container_id", "name", "tags", "path", "sha256", "bytes", "created_at", "endpoint_id")


def _search(globus: Globus) -> globus_sdk.SearchClient:
    import globus_sdk

    with explained("log in to Globus Search"):
        scopes = globus_sdk.SearchClient.scopes
        # made only where it is needed: a login then asks for this consent too
        return globus_sdk.SearchClient(
            app=globus.app,
            app_scopes=[scopes.search, scopes.ingest],
            retry_config=globus.retries(),
        )


def search_entry(
    record: Mapping[str, Any], endpoint_id: str, visible_to: Sequence[str]
) -> dict[str, Any]:
    """What an index holds of one container. The same container at two endpoints is one subject
    with two entries.
    """
    base = record.get("base") or {}
    packages = record.get("packages") or {}
    content = {key: record[key] for key in SHOWN if record.get(key) is not None}
    content |= {
        "endpoint_id": endpoint_id,
        "base": str(base.get("image") or ""),
        "description": str(record.get("description") or ""),
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
            _finish(client, str(client.ingest(index, document)["task_id"]))
    return len(entries)


def withdraw_records(catalogue: Catalogue, index: str, references: Iterable[str]) -> int:
    """Takes what this endpoint published of containers out of a search index, and returns how many
    containers that were. One that the catalogue no longer has is named by its whole id; one that
    was never published is no mistake.
    """
    identifiers = []
    for reference in references:
        try:
            identifiers.append(str(catalogue.show(reference)["container_id"]))
        except NotFoundError:
            if not _is_uuid(reference):
                raise
            identifiers.append(reference.lower())
    return _delete(catalogue, index, [f"{SUBJECT}{identifier}" for identifier in identifiers])


def withdraw_missing(catalogue: Catalogue, index: str) -> int:
    """Takes out of a search index what this endpoint published of containers that its catalogue no
    longer has, and returns how many there were. Entries that one may not see oneself stay.
    """
    there = {f"{SUBJECT}{row['container_id']}" for row in catalogue.list()}
    own = {"type": "match_any", "field_name": "endpoint_id", "values": [catalogue.endpoint_id]}
    client = _search(catalogue.globus)
    gone = []
    with explained(f"search the index {index}"):
        for page in client.paginated.scroll(index, {"q": "*", "filters": [own]}):
            subjects = [str(item.get("subject", "")) for item in page.get("gmeta") or []]
            gone += [s for s in subjects if s.startswith(SUBJECT) and s not in there]
    return _delete(catalogue, index, gone)


def _delete(catalogue: Catalogue, index: str, subjects: Sequence[str]) -> int:
    import globus_sdk

    client = _search(catalogue.globus)
    for subject in subjects:
        with explained(f"write to the search index {index}"):
            try:
                # the same container may have been published by other endpoints
                answer = client.delete_entry(index, subject, entry_id=catalogue.endpoint_id)
            except globus_sdk.SearchAPIError as refused:
                if refused.http_status == 404 and "Index" not in str(refused.code):
                    continue  # it was never there
                raise
            _finish(client, str(answer["task_id"]))
    return len(subjects)


def _finish(client: globus_sdk.SearchClient, task_id: str) -> None:
    """Waits until the index has taken a change. Raises ``ServiceError`` when it does not."""
    end = time.monotonic() + TASK_LIMIT_S
    pause = 0.1
    while True:
        task = client.get_task(task_id)
        if task["state"] == "SUCCESS":
            return
        if task["state"] == "FAILED":
            raise ServiceError(f"The search index refused the change: {task.get('message') or '?'}")
        if time.monotonic() > end:
            raise ServiceError(f"The search index has not taken the change; its task is {task_id}.")
        time.sleep(pause)
        pause = min(pause * 2, 5.0)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _describes_a_container(content: Any) -> bool:
    return isinstance(content, Mapping) and all(
        isinstance(content.get(key), str) and content[key].isprintable() for key in TEXTS
    )


def search_containers(
    globus: Globus, index: str, query: str, limit: int = 20
) -> list[dict[str, Any]]:
    """The containers in an index that fit the words of ``query``, best first, at most ``limit``.

    What others wrote into the index is not believed to be well formed: an entry that does not
    describe a container is left out. Raises ``UsageError`` for a query that is too long.
    """
    if len(query) > MAX_QUERY_CHARS:
        raise UsageError(f"A query has at most {MAX_QUERY_CHARS} characters, not {len(query)}.")
    client = _search(globus)
    with explained(f"search the index {index}"):
        answer = client.search(index, query, limit=limit)
    found = []
    for item in answer.get("gmeta") or []:
        if str(item.get("subject", "")).startswith(SUBJECT):
            entries = [entry.get("content") for entry in item.get("entries") or []]
            found += [dict(content) for content in entries if _describes_a_container(content)]
    return found[:limit]
