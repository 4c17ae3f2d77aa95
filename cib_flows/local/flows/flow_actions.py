"""Flows as action providers: a state whose ``ActionUrl`` is a flow's address runs that flow.

How the service gives such a flow its input, and what becomes of the run when the run that started
it is cancelled, is not documented; :data:`READING` and :meth:`_FlowProvider.cancel` say what is
taken here.
"""

from __future__ import annotations

import uuid
from typing import Any, Protocol

from cib_flows.local.actions import (
    ActionProvider,
    ActionRefused,
    ActionRequest,
    ActionStatus,
    Identity,
    StatusName,
)

from .errors import Refusal
from .providers import flow_of
from .store import Store

__all__ = ["READING", "FlowActions"]

READING = (
    "How a flow that is called as an action gets its input is not documented; the Parameters were"
    " taken as its input itself."
)
WRAPPED = (
    "The Parameters of a flow as an action are its input itself here; give what stands below 'body'"
    " without it."
)
# A flow that calls itself would otherwise never end.
MOST_AT_ONCE = 100
WRAPPING = {"body", "label", "tags", "request_id", "run_managers", "run_monitors"}


class Runs(Protocol):
    """What is asked of the Flows service."""

    def run_flow(
        self, identity: Identity, flow_id: str, body: dict[str, Any], run_id: str | None = None
    ) -> dict[str, Any]: ...

    def get_run(self, identity: Identity, run_id: str, query: dict[str, str]) -> dict[str, Any]: ...

    async def cancel_run(self, identity: Identity, run_id: str) -> dict[str, Any]: ...

    async def settled(self, run_id: str) -> None: ...


class FlowActions:
    """The providers that this service's flows are."""

    def __init__(self, runs: Runs, store: Store) -> None:
        self.runs = runs
        self.store = store
        self.under_way: set[str] = set()

    def provider(self, url: str) -> ActionProvider | None:
        """The flow at ``url``, whether or not it exists; None for what is no flow's address."""
        flow_id = flow_of(url)
        return None if flow_id is None else _FlowProvider(self, flow_id)

    def knows(self, url: str) -> bool:
        """Whether there is a flow at ``url``."""
        flow_id = flow_of(url)
        return flow_id is not None and self.store.flow(flow_id) is not None

    def readings(self, url: str) -> list[str]:
        """Which undocumented behaviour decides about an action at ``url``."""
        return [] if flow_of(url) is None else [READING]


class _FlowProvider:
    """One flow; its actions are its runs, of the identity that the calling state acts as."""

    def __init__(self, flows: FlowActions, flow_id: str) -> None:
        self._flows = flows
        self._flow_id = flow_id

    async def run(self, request: ActionRequest) -> ActionStatus:
        # The same id again for a repeated request, so that the run is started once.
        run_id = str(uuid.uuid5(uuid.UUID(self._flow_id), request.request_id))
        if self._flows.store.summary(run_id) is None:
            if len(self._flows.under_way) >= MOST_AT_ONCE:
                raise ActionRefused(
                    429,
                    {
                        "code": "TOO_MANY_REQUESTS",
                        "description": f"{MOST_AT_ONCE} runs that were started by other runs are"
                        " under way; does a flow call itself?",
                    },
                )
            try:
                self._flows.runs.run_flow(
                    request.identity, self._flow_id, {"body": request.body}, run_id
                )
            except Refusal as refusal:
                raise _refused(refusal, request.body) from refusal
        return await self.status(run_id)

    async def wait(self, action_id: str) -> ActionStatus:
        self._flows.under_way.add(action_id)
        try:
            await self._flows.runs.settled(action_id)
        finally:
            self._flows.under_way.discard(action_id)
        return await self.status(action_id)

    async def status(self, action_id: str) -> ActionStatus:
        run = self._flows.runs.get_run(self._owner(action_id), action_id, {})
        status: StatusName = "FAILED" if run["status"] == "ENDED" else run["status"]
        return ActionStatus(
            action_id=action_id,
            status=status,
            details=run["details"],
            display_status=run["display_status"],
            start_time=run["start_time"],
            completion_time=run["completion_time"],
            label=run["label"],
            creator_id=run["run_owner"],
            manage_by=run["manage_by"],
            monitor_by=run["monitor_by"],
            release_after=None,
        )

    async def cancel(self, action_id: str) -> ActionStatus:
        """Cancels the run: whoever cancels the calling one does not expect the called one to go
        on."""
        try:
            await self._flows.runs.cancel_run(self._owner(action_id), action_id)
        except Refusal:
            pass  # it has ended by itself
        return await self.status(action_id)

    def _owner(self, run_id: str) -> Identity:
        run = self._flows.store.run(run_id)
        if run is None:
            raise ActionRefused(
                404, {"code": "NOT_FOUND", "description": f"There is no run {run_id}."}
            )
        return run.identity


def _refused(refusal: Refusal, body: dict[str, Any]) -> ActionRefused:
    document = refusal.document()["error"]
    description = refusal.message or str(refusal.detail)
    if isinstance(refusal.detail, list):
        said = [str(problem.get("msg", "")) for problem in refusal.detail[:3]]
        description = f"{description.rstrip('.')}: {'; '.join(said)}."
    if isinstance(body.get("body"), dict) and set(body) <= WRAPPING:
        description = f"{description} {WRAPPED}"
    return ActionRefused(refusal.status, {**document, "description": description})
