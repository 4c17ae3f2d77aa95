"""Access rules of collections: who may read or write below a path.

They are kept, shown and changed as the service's are. They open and close nothing here, where whoever
has a token of the home may use all of its collections.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from cib_flows.local.database import Database
from cib_flows.local.transfer.collections import Collection
from cib_flows.local.transfer.errors import TransferError

__all__ = ["AccessRules"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS transfer_access (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, collection TEXT NOT NULL,
    principal_type TEXT NOT NULL, principal TEXT NOT NULL, path TEXT NOT NULL,
    permissions TEXT NOT NULL, created TEXT NOT NULL, expires TEXT,
    UNIQUE (collection, principal_type, principal, path)
);
"""
# The kinds of principals, and whether each names somebody.
PRINCIPALS = {
    "identity": True,
    "group": True,
    "all_authenticated_users": False,
    "anonymous": False,
}
PERMISSIONS = ("r", "rw")

Document = dict[str, Any]


class AccessRules:
    """Every method raises :class:`TransferError` in the service's words."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

    def list(self, collection: Collection) -> Document:
        rows = self._database.rows(
            "SELECT * FROM transfer_access WHERE collection = ? ORDER BY n", (collection.id,)
        )
        return {
            "DATA_TYPE": "access_list",
            "endpoint": collection.id,
            "length": len(rows),
            "DATA": [_document(row) for row in rows],
        }

    def get(self, collection: Collection, rule_id: str) -> Document:
        return _document(self._row(collection, rule_id))

    def create(self, collection: Collection, rule: Mapping[str, Any]) -> Document:
        kind, principal = _principal(rule)
        path = rule.get("path")
        if not isinstance(path, str) or not path.startswith("/"):
            raise TransferError.bad_request("path must be absolute: begin it with '/'.")
        collection.locate(path)
        given = (collection.id, kind, principal, path)
        known = self._database.row(
            "SELECT id FROM transfer_access WHERE collection = ? AND principal_type = ?"
            " AND principal = ? AND path = ?",
            given,
        )
        if known is not None:
            raise TransferError(
                409, "Exists", f"This principal has a rule for {path} already: {known['id']}"
            )
        rule_id = str(uuid.uuid4())
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._database.execute(
            "INSERT INTO transfer_access"
            " (collection, principal_type, principal, path, id, permissions, created, expires)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*given, rule_id, _permissions(rule), now, _expires(rule)),
        )
        return _created(rule_id)

    def update(self, collection: Collection, rule_id: str, rule: Mapping[str, Any]) -> Document:
        known = self.get(collection, rule_id)
        changed = {**known, **{key: item for key, item in rule.items() if item is not None}}
        self._database.execute(
            "UPDATE transfer_access SET permissions = ?, expires = ? WHERE id = ?",
            (_permissions(changed), _expires(changed), known["id"]),
        )
        return _result("Updated", f"Access rule '{rule_id}' permissions updated successfully.")

    def delete(self, collection: Collection, rule_id: str) -> Document:
        known = self.get(collection, rule_id)
        self._database.execute("DELETE FROM transfer_access WHERE id = ?", (known["id"],))
        return _result("Deleted", f"Access rule '{rule_id}' deleted successfully.")

    def manage(
        self,
        collection: Collection,
        body: Mapping[str, Any],
        begun: bool,
        begin: Callable[[], None],
    ) -> Document:
        """What the provider ``manage_permission`` is asked for.

        :param begun: it was begun once before, so that what it makes may be there already
        :param begin: keeps that it is begun
        """
        operation = body.get("operation")
        if operation not in ("CREATE", "UPDATE", "DELETE"):
            raise TransferError.bad_request("operation must be CREATE, UPDATE or DELETE.")
        if operation != "CREATE" and not isinstance(body.get("rule_id"), str):
            raise TransferError.bad_request(f"rule_id is required to {operation}.")
        if not begun:
            begin()
        if operation == "CREATE":
            made = self._made(collection, body) if begun else None
            return _created(made) if made is not None else self.create(collection, body)
        if operation == "UPDATE":
            return self.update(collection, body["rule_id"], body)
        try:
            return self.delete(collection, body["rule_id"])
        except TransferError:
            if not begun:
                raise
            return _result("Deleted", f"Access rule '{body['rule_id']}' deleted successfully.")

    def _made(self, collection: Collection, body: Mapping[str, Any]) -> str | None:
        kind, principal = _principal(body)
        for rule in self.list(collection)["DATA"]:
            if (rule["principal_type"], rule["principal"], rule["path"]) == (
                kind,
                principal,
                body.get("path"),
            ):
                return str(rule["id"])
        return None

    def _row(self, collection: Collection, rule_id: str) -> sqlite3.Row:
        row = self._database.row(
            "SELECT * FROM transfer_access WHERE collection = ? AND id = ?",
            (collection.id, rule_id.lower()),
        )
        if row is None:
            raise TransferError(404, "AccessRuleNotFound", f"There is no access rule {rule_id}")
        return row


def _principal(rule: Mapping[str, Any]) -> tuple[str, str]:
    kind, principal = rule.get("principal_type"), rule.get("principal") or ""
    if not isinstance(kind, str) or kind not in PRINCIPALS:
        raise TransferError.bad_request(f"principal_type must be one of {', '.join(PRINCIPALS)}.")
    if not PRINCIPALS[kind]:
        return kind, ""
    try:
        return kind, str(uuid.UUID(principal))
    except (ValueError, AttributeError):
        raise TransferError.bad_request(
            f"principal must be the UUID of the {kind}, not {principal!r}."
        ) from None


def _permissions(rule: Mapping[str, Any]) -> str:
    permissions = rule.get("permissions")
    if permissions not in PERMISSIONS:
        raise TransferError.bad_request(f"permissions must be 'r' or 'rw', not {permissions!r}.")
    return str(permissions)


def _expires(rule: Mapping[str, Any]) -> str | None:
    expires = rule.get("expiration_date")
    if expires is not None and not isinstance(expires, str):
        raise TransferError.bad_request("expiration_date must be an ISO 8601 time.")
    return expires


def _document(row: sqlite3.Row) -> Document:
    return {
        "DATA_TYPE": "access",
        "id": row["id"],
        "principal_type": row["principal_type"],
        "principal": row["principal"],
        "path": row["path"],
        "permissions": row["permissions"],
        "role_id": None,
        "role_type": None,
        "create_time": row["created"],
        "expiration_date": row["expires"],
    }


def _created(rule_id: str) -> Document:
    created = {"code": "Created", "message": "Access rule created successfully."}
    return {"DATA_TYPE": "access_create_result", **created, "access_id": rule_id}


def _result(code: str, message: str) -> Document:
    return {"DATA_TYPE": "result", "code": code, "message": message}
