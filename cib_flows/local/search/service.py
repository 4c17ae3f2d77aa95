"""The Search service: who may do what with an index, and doing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cib_flows.local.actions import Identity
from cib_flows.local.database import Database
from cib_flows.local.search.errors import SearchError
from cib_flows.local.search.query import Query, read_query
from cib_flows.local.search.store import Entry, Index, Role, SearchStore, SearchTask

__all__ = ["SearchService"]

MAX_SUBJECT = 512
_RANK = {"writer": 1, "admin": 2, "owner": 3}
_VERSION = "2017-09-01"


class SearchService:
    """Every method raises :class:`SearchError` for what the service refuses."""

    def __init__(self, database: Database) -> None:
        self.store = SearchStore(database)

    # -- indexes -------------------------------------------------------------------------------

    def create_index(self, body: Any, identity: Identity) -> Index:
        if not isinstance(body, Mapping):
            raise SearchError.bad_request("The request body must be a JSON object")
        texts = []
        for name in ("display_name", "description"):
            text = body.get(name)
            if not isinstance(text, str) or not text:
                raise SearchError.bad_request(f"{name}: must be a string that is not empty")
            texts.append(text)
        return self.store.add_index(texts[0], texts[1], identity.urn)

    def index(self, index_id: str, identity: Identity, role: str | None = None) -> Index:
        """An index that is open; with ``role``, one in which the identity has at least that."""
        index = self.store.index(index_id)
        if index is None:
            raise SearchError.no_index(index_id)
        if role is not None and self._rank(index_id, identity) < _RANK[role]:
            raise SearchError(403, "Forbidden.Generic", f"You need the {role} role on this index")
        return index

    def open_index(self, index_id: str, identity: Identity, role: str | None = None) -> Index:
        index = self.index(index_id, identity, role)
        if index.status != "open":
            raise SearchError(
                409,
                "Conflict.IncompatibleIndexStatus",
                f"Index status ({index.status}) did not match required status for this operation: open",
            )
        return index

    def set_status(self, index_id: str, identity: Identity, before: str, after: str) -> None:
        index = self.index(index_id, identity, "owner")
        if index.status != before:
            raise SearchError(
                409,
                "Conflict.IncompatibleIndexStatus",
                f"Index status ({index.status}) did not match required status for this operation: {before}",
            )
        self.store.change_index(replace(index, status=after))

    def document(self, index: Index, identity: Identity) -> dict[str, Any]:
        entries = self.store.entries(index.id)
        mine = self._roles(index.id, identity)
        return {
            "@datatype": "GSearchIndex",
            "@version": _VERSION,
            "id": index.id,
            "display_name": index.name,
            "description": index.description,
            "creation_date": index.created,
            "status": index.status,
            "is_trial": True,
            "subscription_id": None,
            "max_size_in_mb": 1,
            "size_in_mb": 0,
            "num_entries": len(entries),
            "num_subjects": len({entry.subject for entry in entries}),
            "permissions": sorted({role.role_name for role in mine}),
        }

    def my_indexes(self, identity: Identity) -> list[Index]:
        return [index for index in self.store.indexes() if self._rank(index.id, identity) > 0]

    def _roles(self, index_id: str, identity: Identity) -> list[Role]:
        return [role for role in self.store.roles(index_id) if role.principal == identity.urn]

    def _rank(self, index_id: str, identity: Identity) -> int:
        ranks = [_RANK[role.role_name] for role in self._roles(index_id, identity)]
        return max(ranks, default=0)

    def add_role(self, index_id: str, body: Any, identity: Identity) -> Role:
        self.index(index_id, identity, "admin")
        role_name = body.get("role_name") if isinstance(body, Mapping) else None
        principal = body.get("principal") if isinstance(body, Mapping) else None
        if role_name not in _RANK:
            raise SearchError.bad_request("role_name: must be owner, admin or writer")
        if not isinstance(principal, str) or not principal.startswith("urn:globus:"):
            raise SearchError.bad_request("principal: must be the URN of an identity or a group")
        return self.store.add_role(index_id, role_name, principal)

    def delete_role(self, index_id: str, role_id: str, identity: Identity) -> Role:
        self.index(index_id, identity, "admin")
        for role in self.store.roles(index_id):
            if role.id == role_id:
                self.store.delete_role(role_id)
                return role
        raise SearchError(404, "NotFound.Generic", f"There is no role {role_id}")

    # -- entries -------------------------------------------------------------------------------

    def ingest(
        self, index_id: str, body: Any, identity: Identity, request_id: str | None = None
    ) -> SearchTask:
        """Take a GIngest document: one GMetaEntry, or a list of them."""
        self.open_index(index_id, identity, "writer")
        entries = list(_ingested(body))
        with self.store.transaction():
            count = self.store.put(index_id, entries)
            return self.store.add_task(
                index_id, "INGEST", identity.id, f"Ingested {count} entries", request_id
            )

    def search(self, index_id: str, query: Query, identity: Identity) -> dict[str, Any]:
        found, facets = query.find(self.visible(index_id, identity))
        subjects = list(dict.fromkeys(entry.subject for entry in found))
        page = subjects[query.offset : query.offset + query.limit]
        result: dict[str, Any] = {
            "@datatype": "GSearchResult",
            "@version": _VERSION,
            "count": len(page),
            "total": len(subjects),
            "offset": query.offset,
            "has_next_page": query.offset + len(page) < len(subjects),
            "gmeta": [
                gmeta(subject, [entry for entry in found if entry.subject == subject])
                for subject in page
            ],
        }
        if facets:
            result["facet_results"] = facets
        return result

    def visible(self, index_id: str, identity: Identity, subject: str | None = None) -> list[Entry]:
        """The entries that an identity may see."""
        self.open_index(index_id, identity)
        mine = {"public", "all_authenticated_users", identity.urn, identity.id}
        return [
            entry
            for entry in self.store.entries(index_id, subject)
            if mine.intersection(entry.visible_to)
        ]

    def delete_by_query(
        self, index_id: str, body: Any, identity: Identity, request_id: str | None = None
    ) -> SearchTask:
        self.open_index(index_id, identity, "writer")
        found, _ = read_query(body).find(self.store.entries(index_id))
        return self._delete(
            index_id, {entry.subject for entry in found}, identity, "DELETE_BY_QUERY", request_id
        )

    def delete_subjects(
        self,
        index_id: str,
        subjects: Any,
        identity: Identity,
        request_id: str | None = None,
    ) -> SearchTask:
        self.open_index(index_id, identity, "writer")
        if not isinstance(subjects, list) or not all(isinstance(item, str) for item in subjects):
            raise SearchError.bad_request("subjects: must be a list of strings")
        return self._delete(index_id, subjects, identity, "BATCH_DELETE_BY_SUBJECT", request_id)

    def delete_entry(
        self,
        index_id: str,
        subject: str,
        entry_id: str | None,
        identity: Identity,
        request_id: str | None = None,
    ) -> SearchTask:
        self.open_index(index_id, identity, "writer")
        with self.store.transaction():
            count = self.store.delete_entry(index_id, subject, entry_id)
            return self.store.add_task(
                index_id, "DELETE_ENTRY", identity.id, f"Deleted {count} entries", request_id
            )

    def _delete(
        self,
        index_id: str,
        subjects: Iterable[str],
        identity: Identity,
        task_type: str,
        request_id: str | None,
    ) -> SearchTask:
        with self.store.transaction():
            count = self.store.delete_subjects(index_id, subjects)
            return self.store.add_task(
                index_id, task_type, identity.id, f"Deleted {count} entries", request_id
            )


def gmeta(subject: str, entries: list[Entry]) -> dict[str, Any]:
    """A subject and its entries as queries return them."""
    return {
        "@datatype": "GMetaResult",
        "@version": "2019-08-27",
        "subject": subject,
        "entries": [
            {
                "entry_id": entry.entry_id,
                "content": entry.content,
                "matched_principal_sets": [],
            }
            for entry in entries
        ],
    }


def _ingested(body: Any) -> Iterable[Entry]:
    kind = body.get("ingest_type") if isinstance(body, Mapping) else None
    data = body.get("ingest_data") if isinstance(body, Mapping) else None
    if kind not in ("GMetaEntry", "GMetaList") or not isinstance(data, Mapping):
        raise SearchError.bad_request(
            "ingest_type must be GMetaEntry or GMetaList, and ingest_data an object"
        )
    listed = data.get("gmeta") if kind == "GMetaList" else [data]
    if not isinstance(listed, list) or not listed:
        raise SearchError.bad_request("ingest_data.gmeta: must be a list with at least one entry")
    for number, item in enumerate(listed):
        yield _entry(item, f"ingest_data.gmeta[{number}]" if kind == "GMetaList" else "ingest_data")


def _entry(item: Any, where: str) -> Entry:
    if not isinstance(item, Mapping):
        raise SearchError.bad_request(f"{where}: must be an object")
    subject, visible_to = item.get("subject"), item.get("visible_to")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT:
        raise SearchError.bad_request(f"{where}.subject: must be a text of 1 to {MAX_SUBJECT}")
    if (
        not isinstance(visible_to, list)
        or not visible_to
        or not all(isinstance(name, str) for name in visible_to)
    ):
        raise SearchError.bad_request(f"{where}.visible_to: must be a list of principals")
    if not isinstance(item.get("content"), Mapping):
        raise SearchError.bad_request(f"{where}.content: must be an object")
    entry_id = item.get("id")
    if entry_id is not None and not isinstance(entry_id, str):
        raise SearchError.bad_request(f"{where}.id: must be a string or null")
    return Entry(subject, entry_id, visible_to, item["content"])
