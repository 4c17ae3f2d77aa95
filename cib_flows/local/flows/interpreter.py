"""Moves runs from state to state. What a run has done is kept before it goes on, so that a killed
service continues every run where it was: no finished state runs twice, and an action that had begun
is asked for, not begun again."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cib_flows.local import clock
from cib_flows.local.actions import ActionProvider, ActionStatus, Identity
from cib_flows.local.database import DiskFull

from . import states
from .documents import flow_scope
from .entries import completed, started, state_failed
from .errors import StateError
from .flow_actions import FlowActions
from .provider_calls import PROVIDER_PATIENCE, ProviderCalls
from .providers import run_as
from .question import question_of
from .role_tokens import RoleTokens
from .states import Finished
from .store import LogEntry, Run, Store
from .web_inputs import WebInputs

__all__ = ["Interpreter"]

logger = logging.getLogger(__name__)

DEFAULT_WAIT_TIME = 300
# A flow may loop for ever; after this many states in a row without waiting it is slowed down.
QUICK_STATES = 1000
SLOW_DOWN = 0.05
FULL_DISK_PAUSE = 1.0


@dataclass
class _Running:
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Interpreter:
    """Runs flows on the event loop it was started on.

    :param providers: by their ActionUrl
    :param flows: the flows that other flows call
    :param on_rest: called with a run's id within the transaction that ends the run, or rests it
    """

    def __init__(
        self,
        store: Store,
        web_inputs: WebInputs,
        roles: RoleTokens,
        providers: Mapping[str, ActionProvider],
        flows: FlowActions,
        on_rest: Callable[[str], None],
    ) -> None:
        self._store = store
        self._web_inputs = web_inputs
        self._roles = roles
        self._on_rest = on_rest
        self._calls = ProviderCalls(providers, flows)
        self._running: dict[str, _Running] = {}

    def knows(self, url: str) -> bool:
        """Whether a provider answers at ``url``."""
        return self._calls.knows(url)

    async def start(self) -> None:
        """Take up every run that was ACTIVE."""
        for run_id in self._store.active_runs():
            self.launch(run_id)

    async def stop(self) -> None:
        """Leave every run where it is, to be taken up by the next start."""
        tasks = [running.task for running in self._running.values() if running.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def launch(self, run_id: str) -> None:
        """Begin to move a stored run; nothing happens when it is being moved already."""
        if run_id in self._running:
            return
        running = _Running()
        self._running[run_id] = running
        running.task = asyncio.create_task(self._move(run_id, running), name=f"run {run_id}")

    async def cancel(self, run_id: str, patience: float = PROVIDER_PATIENCE) -> None:
        """End a run as cancelled; returns when that is done, or after ``patience`` seconds while it
        is being done."""
        self._store.request_cancel(run_id)
        self.launch(run_id)
        running = self._running[run_id]
        running.cancelled.set()
        if running.task is not None:
            await asyncio.wait({running.task}, timeout=patience)

    async def settled(self, run_id: str) -> None:
        """Return when the run has ended or rests, so that nothing more happens to it by itself."""
        running = self._running.get(run_id)
        if running is not None and running.task is not None:
            await asyncio.wait({running.task})

    # --- one run ----------------------------------------------------------------------------------

    async def _move(self, run_id: str, running: _Running) -> None:
        try:
            while not await self._moved(run_id, running):
                await asyncio.sleep(FULL_DISK_PAUSE)
        except Exception:
            # Not even the failure could be stored: the run stays ACTIVE, and the next start goes on.
            logger.exception("run %s: its state could not be stored", run_id)
        finally:
            del self._running[run_id]

    async def _moved(self, run_id: str, running: _Running) -> bool:
        """Go on from what is stored; False when the disk was full on the way."""
        run = self._store.run(run_id)
        if run is None:
            return True
        if run.cancel_requested:
            running.cancelled.set()
        try:
            try:
                await self._move_to_end(run, running)
            except DiskFull:
                raise
            except Exception:
                logger.exception("run %s: internal error", run_id)
                self._fail(
                    run,
                    StateError(
                        "States.Runtime",
                        "The local Globus met an internal error; its log has the details.",
                    ),
                )
        except DiskFull as problem:
            logger.warning("run %s waits: %s", run_id, problem)
            return False
        return True

    async def _move_to_end(self, run: Run, running: _Running) -> None:
        quick = 0
        while True:
            if running.cancelled.is_set():
                await self._end_cancelled(run)
                return
            state = run.definition["States"][run.state_name]
            began = run.step
            try:
                if not await self._do_state(run, state, running):
                    return
            except StateError as error:
                if not self._catch(run, state, error):
                    return
            waited = state["Type"] in ("Action", "Wait", "AwaitWebInput")
            quick = 0 if waited or run.step == began else quick + 1
            await asyncio.sleep(SLOW_DOWN if quick > QUICK_STATES else 0)

    async def _do_state(self, run: Run, state: Mapping[str, Any], running: _Running) -> bool:
        """Do the present state; False when the run has ended or must wait for its owner.

        :raises StateError: when the state failed
        """
        kind = state["Type"]
        if kind == "Fail":
            self._fail(run, states.failure(state, run.document, run.context), entering=True)
            return False
        if kind == "Wait":
            return await self._wait(run, state, running)
        if kind == "Action":
            return await self._act(run, state, running)
        if kind == "CreateWebInput":
            return self._ask(run, state)
        if kind == "AwaitWebInput":
            return await self._await_answer(run, state, running)
        finished = states.run_at_once(state, run.document, run.context)
        if finished is None:
            raise StateError("States.Runtime", f"States of type {kind} are not supported.")
        return self._complete(run, state, finished, entering=True)

    # --- states that take time --------------------------------------------------------------------

    async def _wait(self, run: Run, state: Mapping[str, Any], running: _Running) -> bool:
        if run.pending is None:
            until = states.wait_end(state, run.document, run.context, time.time())
            run.pending = {"until": until}
            self._store.save_run(run, [started(run, state, {}, [])])
        if not await clock.reached(run.pending["until"], running.cancelled):
            return True
        return self._complete(run, state, Finished(run.document, state.get("Next"), {}, {}))

    def _ask(self, run: Run, state: Mapping[str, Any]) -> bool:
        body, shown, warnings = states.action_body(state, run.document, run.context)
        # The same again after a crash, so that nobody is asked twice.
        web_input_id = str(uuid.uuid5(uuid.UUID(run.id), f"web input {run.step}"))
        question = question_of(body, web_input_id, run.identity.urn)
        self._web_inputs.ask(web_input_id, run.id, run.flow_id, run.identity.urn, question)
        finished = states.finish_web_input(
            state,
            run.document,
            {"web_input_id": web_input_id},
            shown,
            [*warnings, *question.readings],
        )
        return self._complete(run, state, finished, entering=True)

    async def _await_answer(self, run: Run, state: Mapping[str, Any], running: _Running) -> bool:
        body, shown, warnings = states.action_body(state, run.document, run.context)
        web_input_id = str(body.get("web_input_id"))
        asked = self._web_inputs.get(web_input_id)
        if asked is None or asked.run_id != run.id:
            raise StateError("States.Runtime", f"This run has no web input {web_input_id!r}.")
        if run.pending is None:
            run.pending = {"web_input_id": web_input_id}
            self._store.save_run(run, [started(run, state, shown, warnings)])
        asked = await self._web_inputs.closed(web_input_id, running.cancelled)
        if asked is None:
            return True
        if asked.option_id is None:
            raise StateError(
                "Flows.WebInputExpired",
                f"Nobody answered the web input {web_input_id} within"
                f" {self._web_inputs.lifetime:.0f} seconds.",
            )
        result = {"web_input_id": web_input_id, "response": asked.answer}
        return self._complete(
            run, state, states.finish_web_input(state, run.document, result, shown, [])
        )

    async def _act(self, run: Run, state: Mapping[str, Any], running: _Running) -> bool:
        body, shown, warnings = states.action_body(state, run.document, run.context)
        warnings += self._calls.readings(state)
        identity = self._identity(run, state)
        resumed = run.pending is not None
        if run.pending is None:
            run.pending = {
                # The same again after a crash, so that the provider recognises a repeated call.
                "request_id": str(uuid.uuid5(uuid.UUID(run.id), f"step {run.step}")),
                "action_id": None,
                "deadline": time.time() + state.get("WaitTime", DEFAULT_WAIT_TIME),
            }
            self._store.save_run(run, [started(run, state, shown, warnings)])
        status = await self._calls.status(
            run,
            state,
            body,
            identity,
            running.cancelled,
            lambda: self._store.save_run(run, []),
            resumed,
        )
        if status is None:
            return True
        if status.status == "INACTIVE":
            self._rest(run, status)
            return False
        result = states.action_result(run.state_name, status, identity)
        return self._complete(run, state, states.finish_action(state, run.document, result, shown))

    def _identity(self, run: Run, state: Mapping[str, Any]) -> Identity:
        if run_as(state) == "Flow":
            return Identity(run.flow_id, f"{run.flow_id}@clients.auth.globus.org")
        if run_as(state) != "User":
            return self._roles.identity(run.id, run_as(state))
        return run.identity

    # --- what is kept -----------------------------------------------------------------------------

    def _complete(
        self, run: Run, state: Mapping[str, Any], finished: Finished, entering: bool = False
    ) -> bool:
        """Keep a finished state; False when the flow ends with it."""
        changed = finished.document is not run.document
        text = states.document_text(finished.document) if changed else None
        entries = [started(run, state, finished.input, [])] if entering else []
        entries.append(completed(run, state, finished))
        run.document = finished.document
        if finished.next is None:
            self._succeed(run, entries, text)
            return False
        self._enter(run, finished.next)
        self._store.save_run(run, entries, text)
        return True

    def _enter(self, run: Run, name: str) -> None:
        run.state_name = name
        run.step += 1
        run.pending = None

    def _catch(self, run: Run, state: Mapping[str, Any], error: StateError) -> bool:
        """Go on in the catcher's state, or fail the run; whether it goes on."""
        catcher = states.catcher_for(state, error)
        entries = [] if run.pending is not None else [started(run, state, None, [])]
        warnings = states.error_warnings(state, error)
        if catcher is None:
            self._fail(run, error, [*entries, state_failed(run, state, error, warnings)])
            return False
        try:
            caught = states.finish_caught(catcher, run.document, error)
            text = states.document_text(caught.document)
        except StateError as second:
            self._fail(run, second, [*entries, state_failed(run, state, error, warnings)])
            return False
        entries.append(state_failed(run, state, error, [*warnings, *caught.warnings]))
        run.document = caught.document
        self._enter(run, str(caught.next))
        self._store.save_run(run, entries, text)
        return True

    def _succeed(self, run: Run, entries: list[LogEntry], text: str | None) -> None:
        output = states.shown(run.document)
        entries.append(
            LogEntry(
                "FlowSucceeded", "The Flow Instance completed successfully", {"output": output}
            )
        )
        outcome = {
            "code": "FlowSucceeded",
            "description": "The Flow run reached a successful completion state",
            "output": output,
        }
        self._end(run, "SUCCEEDED", outcome, entries, text)

    def _fail(
        self,
        run: Run,
        error: StateError,
        entries: list[LogEntry] | None = None,
        entering: bool = False,
    ) -> None:
        entries = list(entries or [])
        description = states.sentence(error.cause)
        if not entering:
            description = f"State {run.state_name} failed with {error.error}: {description}"
        else:
            entries.append(started(run, run.definition["States"][run.state_name], None, []))
        details = {
            "error": error.error,
            "cause": states.shown(error.cause),
            "state_name": run.state_name,
        }
        entries.append(
            LogEntry(
                "FlowFailed", "The Flow Instance failed", {**details, "description": description}
            )
        )
        self._end(
            run, "FAILED", {"code": "FlowFailed", "description": description, **details}, entries
        )

    def _rest(self, run: Run, status: ActionStatus) -> None:
        """The action needs its owner; the run rests until it is resumed."""
        details = (
            status.details
            if isinstance(status.details, dict)
            else {"description": str(status.details)}
        )
        outcome = {"code": "ActionInactive", **states.shown(details), "state_name": run.state_name}
        if isinstance(outcome.get("required_scope"), str):
            # The provider knows its own scope; what the owner has to consent to is the flow's.
            outcome["required_scope"] = f"{flow_scope(run.flow_id)}[{outcome['required_scope']}]"
        entry = LogEntry(
            "FlowInactive", f"State {run.state_name} of type Action needs attention", outcome
        )
        # The action's id, which a provider that answered INACTIVE at once has not had kept yet.
        run.pending = {**(run.pending or {}), "action_id": status.action_id}
        with self._store.transaction():
            self._store.rest_run(run, outcome, entry)
            self._on_rest(run.id)

    async def _end_cancelled(self, run: Run) -> None:
        await self._calls.cancel(run, run.definition["States"][run.state_name])
        entry = LogEntry("FlowCanceled", "The Flow Instance was canceled by the user", {})
        self._end(run, "FAILED", entry.document(), [entry])

    def _end(
        self,
        run: Run,
        status: str,
        outcome: dict[str, Any],
        entries: list[LogEntry],
        text: str | None = None,
    ) -> None:
        with self._store.transaction():
            self._store.end_run(run, status, outcome, entries, text)
            self._on_rest(run.id)
