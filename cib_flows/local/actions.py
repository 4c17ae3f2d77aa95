"""What the flow interpreter asks of an action provider, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

__all__ = [
    "ActionProvider",
    "ActionRefused",
    "ActionRequest",
    "ActionStatus",
    "Identity",
    "StatusName",
]

StatusName = Literal["ACTIVE", "INACTIVE", "SUCCEEDED", "FAILED"]


@dataclass(frozen=True)
class Identity:
    """Who acts: a Globus Auth identity."""

    id: str
    username: str
    email: str | None = None

    @property
    def urn(self) -> str:
        return f"urn:globus:auth:identity:{self.id}"


@dataclass(frozen=True)
class ActionRequest:
    """One call of a provider's ``run``. ``request_id`` is the same when the interpreter repeats a call after a
    crash, so that a provider answers with the action it started the first time instead of starting another."""

    request_id: str
    body: dict[str, Any]
    identity: Identity


@dataclass(frozen=True)
class ActionStatus:
    """The provider protocol's status document, as a flow stores it (times are ISO 8601, UTC)."""

    action_id: str
    status: StatusName
    details: Any
    display_status: str
    start_time: str
    completion_time: str | None = None
    label: str | None = None
    creator_id: str = ""
    manage_by: list[str] = field(default_factory=list)
    monitor_by: list[str] = field(default_factory=list)
    release_after: str | None = "P30D"


class ActionRefused(Exception):
    """The provider would not start the action; becomes ``ActionUnableToRun`` in the flow.

    ``status_code`` and ``body`` are those of the HTTP answer that the real provider would give.
    """

    def __init__(self, status_code: int, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("description") or body.get("message") or body))
        self.status_code = status_code
        self.body = body


class ActionProvider(Protocol):
    """A provider the interpreter can drive. ``wait`` returns when the action is no longer ACTIVE."""

    async def run(self, request: ActionRequest) -> ActionStatus: ...

    async def wait(self, action_id: str) -> ActionStatus: ...

    async def status(self, action_id: str) -> ActionStatus: ...

    async def cancel(self, action_id: str) -> ActionStatus: ...
