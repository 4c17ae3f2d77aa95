"""Actions on collections that ask for a consent first: INACTIVE until it is given."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from cib_flows.local.actions import (
    ActionProvider,
    ActionRefused,
    ActionRequest,
    ActionStatus,
    Identity,
)
from cib_flows.local.consents import TRANSFER_SCOPE, Consents, data_access_scope
from cib_flows.local.database import Database
from cib_flows.local.transfer.collections import Collections
from cib_flows.local.transfer.errors import TransferError

__all__ = ["ConsentingProvider"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS transfer_waiting (
    action_id TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    created TEXT NOT NULL,
    begun TEXT
);
"""
FIELDS = ("source_endpoint", "destination_endpoint", "endpoint", "endpoint_id")
PREFIX = "consent-"


class ConsentingProvider:
    """Stands before another provider. What it keeps waiting it begins when it is asked again and
    the consent is there, under the id that it answered with first."""

    def __init__(
        self,
        provider: ActionProvider,
        collections: Collections,
        consents: Consents,
        database: Database,
    ) -> None:
        self._provider = provider
        self._collections = collections
        self._consents = consents
        self._database = database
        database.create(SCHEMA)

    async def run(self, request: ActionRequest) -> ActionStatus:
        missing = self._missing(request.body, request.identity)
        action_id = PREFIX + request.request_id
        if not missing and self._row(action_id) is None:
            return await self._provider.run(request)
        self._database.execute(
            "INSERT OR IGNORE INTO transfer_waiting (action_id, request, created) VALUES (?, ?, ?)",
            (
                action_id,
                json.dumps(dataclasses.asdict(request)),
                datetime.now(timezone.utc).isoformat(),
            ),
        )
        return await self.status(action_id)

    async def status(self, action_id: str) -> ActionStatus:
        if not action_id.startswith(PREFIX):
            return await self._provider.status(action_id)
        row = self._row(action_id)
        if row is None:
            raise ActionRefused(404, {"code": "NotFound", "message": f"No such action {action_id}"})
        if row["begun"] is not None:
            return _renamed(await self._provider.status(row["begun"]), action_id)
        kept = json.loads(row["request"])
        request = ActionRequest(kept["request_id"], kept["body"], Identity(**kept["identity"]))
        missing = self._missing(request.body, request.identity)
        if missing:
            return _waiting(action_id, row["created"], missing)
        status = await self._provider.run(request)
        self._database.execute(
            "UPDATE transfer_waiting SET begun = ? WHERE action_id = ?",
            (status.action_id, action_id),
        )
        return _renamed(status, action_id)

    async def wait(self, action_id: str) -> ActionStatus:
        status = await self.status(action_id)
        if status.status != "ACTIVE":
            return status
        return _renamed(await self._provider.wait(self._begun(action_id)), action_id)

    async def cancel(self, action_id: str) -> ActionStatus:
        begun = self._begun(action_id)
        if begun.startswith(PREFIX):
            return await self.status(action_id)
        return _renamed(await self._provider.cancel(begun), action_id)

    def _begun(self, action_id: str) -> str:
        """The id of the action itself; that of the waiting one when it has not begun."""
        row = self._row(action_id)
        return action_id if row is None or row["begun"] is None else str(row["begun"])

    def _row(self, action_id: str) -> Any:
        return self._database.row(
            "SELECT * FROM transfer_waiting WHERE action_id = ?", (action_id,)
        )

    def _missing(self, body: Mapping[str, Any], identity: Identity) -> list[str]:
        """The collections in ``body`` whose consent is not given."""
        missing = []
        for field in FIELDS:
            try:
                collection = self._collections.get(str(body.get(field, "")))
            except TransferError:
                # Of an unknown one the provider itself tells.
                continue
            if collection.data_access and not self._consents.allows(identity.id, collection.id):
                missing.append(collection.id)
        return list(dict.fromkeys(missing))


def _renamed(status: ActionStatus, action_id: str) -> ActionStatus:
    return dataclasses.replace(status, action_id=action_id)


def _waiting(action_id: str, created: str, collections: list[str]) -> ActionStatus:
    needed = " ".join(f"*{data_access_scope(collection)}" for collection in collections)
    return ActionStatus(
        action_id=action_id,
        status="INACTIVE",
        details={
            "code": "ConsentRequired",
            "description": f"Missing required data_access consent for {', '.join(collections)}",
            "required_scope": f"{TRANSFER_SCOPE}[{needed}]",
        },
        display_status="INACTIVE",
        start_time=created,
    )
