"""Starting an action, waiting for it and asking for its status, with every way in which a provider
may fail turned into an error of the state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from cib_flows.local.actions import (
    ActionProvider,
    ActionRefused,
    ActionRequest,
    ActionStatus,
    Identity,
)
from cib_flows.local.database import DiskFull

from . import states
from .errors import StateError
from .flow_actions import FlowActions
from .providers import action_url, normal_url
from .store import Run

__all__ = ["PROVIDER_PATIENCE", "ProviderCalls"]

logger = logging.getLogger(__name__)

# How long a provider may take to answer a status or cancel request.
PROVIDER_PATIENCE = 10.0


class _TookTooLong(Exception):
    def __init__(self, status: ActionStatus) -> None:
        super().__init__(status.action_id)
        self.status = status


class ProviderCalls:
    """The providers, by their ActionUrl."""

    def __init__(self, providers: Mapping[str, ActionProvider], flows: FlowActions) -> None:
        self._providers = {normal_url(url): provider for url, provider in providers.items()}
        self._flows = flows

    def knows(self, url: str) -> bool:
        """Whether a provider answers at ``url``."""
        return normal_url(url) in self._providers or self._flows.knows(url)

    def readings(self, state: Mapping[str, Any]) -> list[str]:
        """Which undocumented behaviour of its provider decides about the state."""
        return self._flows.readings(action_url(state))

    def _provider(self, url: str) -> ActionProvider | None:
        return self._providers.get(normal_url(url)) or self._flows.provider(url)

    async def status(
        self,
        run: Run,
        state: Mapping[str, Any],
        body: dict[str, Any],
        identity: Identity,
        cancelled: asyncio.Event,
        keep: Callable[[], None],
        resumed: bool,
    ) -> ActionStatus | None:
        """The action's status when it is no longer ACTIVE; None when the run was cancelled
        meanwhile.

        :param keep: called when the action's id is known, to store ``run.pending`` with it
        :param resumed: the action was begun before the service was started
        :raises StateError: ``ActionUnableToRun`` or ``ActionTimeout``
        """
        pending = run.pending or {}
        url = action_url(state)
        provider = self._provider(url)
        if provider is None:
            raise StateError(
                "ActionUnableToRun", f"No action provider answers at {url} in the local Globus."
            )
        try:
            if pending["action_id"] is None:
                status = await provider.run(ActionRequest(pending["request_id"], body, identity))
                if status.status == "ACTIVE":
                    pending["action_id"] = status.action_id
                    keep()
            elif resumed:
                status = await provider.status(pending["action_id"])
            if status.status != "ACTIVE":
                return status
            return await self._await_action(provider, status, pending["deadline"], cancelled)
        except ActionRefused as refusal:
            raise StateError(
                "ActionUnableToRun", {"status_code": refusal.status_code, **refusal.body}
            ) from refusal
        except _TookTooLong as late:
            raise StateError(
                "ActionTimeout", states.action_result(run.state_name, late.status, identity)
            ) from late
        except DiskFull:
            raise
        except Exception as error:
            logger.exception("run %s: the provider at %s failed", run.id, url)
            raise StateError(
                "ActionUnableToRun",
                f"The action provider at {url} failed: {error or type(error).__name__}",
            ) from error

    async def _await_action(
        self,
        provider: ActionProvider,
        status: ActionStatus,
        deadline: float,
        cancelled_event: asyncio.Event,
    ) -> ActionStatus | None:
        action = asyncio.ensure_future(provider.wait(status.action_id))
        cancelled = asyncio.ensure_future(cancelled_event.wait())
        try:
            await asyncio.wait(
                {action, cancelled},
                timeout=max(0.0, deadline - time.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if action.done():
                return action.result()
            if cancelled.done():
                return None
        finally:
            # Only the waiting ends here: an action that took too long is left alone.
            action.cancel()
            cancelled.cancel()
        raise _TookTooLong(await self._last_poll(provider, status))

    async def _last_poll(self, provider: ActionProvider, status: ActionStatus) -> ActionStatus:
        try:
            return await asyncio.wait_for(provider.status(status.action_id), PROVIDER_PATIENCE)
        except Exception:
            logger.warning(
                "action %s: no status after its wait time", status.action_id, exc_info=True
            )
            return status

    async def cancel(self, run: Run, state: Mapping[str, Any]) -> None:
        """Cancel the action that ``run`` waits for, if there is one; that it cannot be is only
        logged."""
        action_id = (run.pending or {}).get("action_id")
        if action_id is None:
            return
        provider = self._provider(action_url(state))
        try:
            if provider is not None:
                await asyncio.wait_for(provider.cancel(action_id), PROVIDER_PATIENCE)
        except Exception:
            logger.warning(
                "run %s: action %s could not be cancelled", run.id, action_id, exc_info=True
            )
