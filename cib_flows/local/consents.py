"""What people have consented to: which service may act for them, on whose behalf, on which
collection.

A token request that asks for a scope with dependent scopes in brackets grants them here, as a
person would in the browser.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from cib_flows.local.database import Database

if TYPE_CHECKING:
    from globus_sdk import Scope

__all__ = ["TRANSFER_SCOPE", "Consents", "data_access_scope"]

TRANSFER_SCOPE = "urn:globus:auth:scope:transfer.api.globus.org:all"

SCHEMA = """
CREATE TABLE IF NOT EXISTS auth_consents (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL,
    path TEXT NOT NULL,
    created TEXT NOT NULL,
    UNIQUE (identity, path)
);
"""
# Between the scopes of a path; no scope holds it.
ARROW = " "


def data_access_scope(collection_id: str) -> str:
    """What a mapped collection asks for before Transfer may touch it for somebody."""
    return f"https://auth.globus.org/scopes/{collection_id}/data_access"


class Consents:
    """Kept for good; a consent that is given again is the same one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

    def grant(self, identity_id: str, scopes: str) -> None:
        """Note what a token request asks for beyond plain scopes; a text that is no scope string is
        left to the token route."""
        if "[" not in scopes:
            return
        # Here, since the SDK is more than all the rest that the server imports.
        from globus_sdk.exc import GlobusError
        from globus_sdk.scopes import ScopeParser

        try:
            trees = ScopeParser.parse(scopes)
        except GlobusError:
            return
        now = datetime.now(timezone.utc).isoformat()
        with self._database.transaction():
            for tree in trees:
                for path in _paths(tree):
                    self._database.execute(
                        "INSERT OR IGNORE INTO auth_consents (identity, path, created)"
                        " VALUES (?, ?, ?)",
                        (identity_id, ARROW.join(path), now),
                    )

    def allows(self, identity_id: str, collection_id: str) -> bool:
        """Whether Transfer may touch the collection for the identity, whoever asks Transfer."""
        wanted = [TRANSFER_SCOPE, data_access_scope(collection_id)]
        rows = self._database.rows(
            "SELECT path FROM auth_consents WHERE identity = ?", (identity_id,)
        )
        return any(row["path"].split(ARROW)[-2:] == wanted for row in rows)

    def documents(self, identity_id: str) -> list[dict[str, Any]]:
        """As Auth lists them."""
        rows = self._database.rows(
            "SELECT * FROM auth_consents WHERE identity = ? ORDER BY n", (identity_id,)
        )
        numbers = {row["path"]: row["n"] for row in rows}
        return [
            {
                "id": row["n"],
                "status": "approved",
                "created": row["created"],
                "updated": row["created"],
                "last_used": row["created"],
                "allows_refresh": True,
                "auto_approved": False,
                "atomically_revocable": ARROW in row["path"],
                "effective_identity": identity_id,
                "scope_name": row["path"].split(ARROW)[-1],
                "scope": str(uuid.uuid5(uuid.NAMESPACE_URL, row["path"].split(ARROW)[-1])),
                "client": identity_id,
                "dependency_path": [numbers[path] for path in _prefixes(row["path"])],
            }
            for row in rows
        ]


def _paths(tree: Scope, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every way from the root of ``tree`` to one of its scopes, the root's own first."""
    here = (*above, tree.scope_string)
    return [here, *(path for part in tree.dependencies for path in _paths(part, here))]


def _prefixes(path: str) -> list[str]:
    scopes = path.split(ARROW)
    return [ARROW.join(scopes[: length + 1]) for length in range(len(scopes))]
