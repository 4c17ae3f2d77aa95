"""Which endpoints daemons have registered."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from cib_flows.local.database import Database

__all__ = ["EndpointStore", "Registration"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS compute_endpoints (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL, created REAL NOT NULL,
    locked_until REAL NOT NULL DEFAULT 0
);
"""


@dataclass(frozen=True)
class Registration:
    """What a daemon said of its endpoint; ``body`` is as it was sent."""

    id: str
    owner: str
    body: dict[str, Any]
    locked_until: float = 0.0

    @property
    def name(self) -> str:
        return str(self.body.get("endpoint_name") or self.id)

    @property
    def allowed_functions(self) -> list[str] | None:
        """The only functions that may run there; None: all."""
        allowed = self.body.get("allowed_functions")
        return [str(function) for function in allowed] if isinstance(allowed, list) else None


class EndpointStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

    def save(self, registration: Registration) -> None:
        self._database.execute(
            "INSERT INTO compute_endpoints (id, owner, body, created) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            (registration.id, registration.owner, json.dumps(registration.body), time.time()),
        )

    def get(self, endpoint_id: str) -> Registration | None:
        row = self._database.row(
            "SELECT id, owner, body, locked_until FROM compute_endpoints WHERE id = ?",
            (endpoint_id,),
        )
        return None if row is None else _registration(row)

    def all(self) -> list[Registration]:
        rows = self._database.rows(
            "SELECT id, owner, body, locked_until FROM compute_endpoints ORDER BY created"
        )
        return [_registration(row) for row in rows]

    def lock(self, endpoint_id: str, until: float) -> None:
        self._database.execute(
            "UPDATE compute_endpoints SET locked_until = ? WHERE id = ?", (until, endpoint_id)
        )

    def delete(self, endpoint_id: str) -> None:
        self._database.execute("DELETE FROM compute_endpoints WHERE id = ?", (endpoint_id,))


def _registration(row: Any) -> Registration:
    return Registration(row["id"], row["owner"], json.loads(row["body"]), row["locked_until"])
