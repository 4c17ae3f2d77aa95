"""One build: a run of the flow, from its start to the container it made or the reason it did
not.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cib_flows.containers import Container
from cib_flows.deployment import FlowSource
from cib_flows.deployment_record import Deployment, load_deployment, remember_worker
from cib_flows.errors import CibFlowsError, NotFoundError, RunFailedError, ServiceError
from cib_flows.failures import BuildFailure, failure_of, inactive_reason, output_of
from cib_flows.profiles import Globus
from cib_flows.progress import (
    LogFollower,
    Progress,
    entry_of,
    names_a_state,
    newest_entries,
    pause_after,
    step_in,
    title_of,
)
from cib_flows.run_status import TERMINAL, RunStatus
from cib_flows.services import RefusedError, explained, is_transient
from cib_flows.starting import start_once
from cib_flows.tasks import call_function

if TYPE_CHECKING:
    from cib_flows.spec import ContainerSpec

__all__ = ["BuildRun", "RunStatus"]

MAX_LABEL = 64
# Each of these has had the SDK's own five retries: together some minutes.
OUTAGES_ENDURED = 6


class BuildRun:
    """A run of the build flow.

    Made by ``ContainerBuilder.build`` or ``BuildRun.attach``; holding one keeps nothing alive, and
    the run goes on without it.
    """

    def __init__(self, globus: Globus, run_id: str, deployment: Deployment | None = None) -> None:
        self.globus = globus
        self.run_id = run_id
        self._deployment = deployment
        self._endpoint_id: str | None = None
        self._ended: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"BuildRun({self.run_id!r})"

    @classmethod
    def start(
        cls,
        globus: Globus,
        deployment: Deployment,
        spec: ContainerSpec,
        label: str | None = None,
        tags: Sequence[str] = (),
    ) -> BuildRun:
        """Starts a run for ``spec``. ``label`` is what lists show, by default ``name:tag``.

        Raises ``ServiceError`` when the service refuses it.
        """
        body = spec.to_dict()
        run_id = start_once(
            globus,
            deployment.flow_id,
            body,
            (label or f"{spec.name}:{spec.tag}")[:MAX_LABEL],
            list(tags),
        )
        run = cls(globus, run_id, deployment)
        run._endpoint_id = str(body.get("build_endpoint") or deployment.build_endpoint)
        return run

    @classmethod
    def attach(cls, globus: Globus, run_id: str) -> BuildRun:
        """The run of that id, started by anyone. Raises ``NotFoundError`` when there is none."""
        try:
            known = str(uuid.UUID(run_id))
        except ValueError:
            raise NotFoundError(f"There is no run {run_id!r}: a run's id is a UUID.") from None
        run = cls(globus, known, load_deployment(globus))
        run.status()
        return run

    def status(self) -> RunStatus:
        """Where the run is now."""
        return RunStatus.of({**self._document(), "run_id": self.run_id})

    def logs(self) -> list[dict[str, Any]]:
        """All log entries, oldest first, as the service gives them: ``time, code, description,
        details``.
        """
        import globus_sdk

        entries: list[dict[str, Any]] = []
        marker: str | None = None
        while True:
            self.globus.flows_pacer.wait()
            with explained("read the run's log"):
                page = self.globus.flows.get_run_logs(
                    self.run_id, limit=100, marker=marker or globus_sdk.MISSING
                )
            entries.extend(page.get("entries") or [])
            marker = page.get("marker")
            if not page.get("has_next_page") or not marker:
                return entries

    def build_log_tail(self) -> tuple[str, str]:
        """The last lines of the build's own log, and the path of the whole log on the endpoint.

        Raises ``NotFoundError`` when the endpoint has no such run, ``ServiceError`` when it does not
        answer.
        """
        endpoint = self._build_endpoint()
        if endpoint is None or self._deployment is None:
            raise NotFoundError(
                f"The run {self.run_id} has no build log yet, or was started by another deployment."
            )
        answer = call_function(
            self.globus,
            "watch_build",
            self._deployment.function_id("watch_build"),
            endpoint,
            self._control_config,
            {"run_id": self.run_id, "offset": 0},
        )
        if not answer.get("ok"):
            error = answer.get("error") or {}
            raise NotFoundError(
                str(error.get("message") or f"The run {self.run_id} has no build log.")
            )
        return str(answer.get("log") or ""), str(answer.get("log_path") or "")

    def watch(self, follow_log: bool = True) -> Iterator[Progress]:
        """What the run is doing, again and again, until it ends or pauses (status INACTIVE).

        The last event carries the final status. ``follow_log=False`` asks the endpoint nothing. A
        service that is out of reach for a few minutes is waited for; after that its ``ServiceError``
        is raised, and the run goes on.
        """
        started = changed = time.monotonic()
        follower: LogFollower | None = None
        seen = Progress("", "", 0.0)
        looks = failures = 0
        while True:
            try:
                run = self._document()
                status, newest = str(run.get("status")), entry_of(run)
                step = step_in([newest])
                # the log need be asked only where the run does not say where it is
                is_told = names_a_state(newest) or (status in TERMINAL and seen.step)
                if not is_told and looks % 3 == 0:
                    step = self._newest_step()
            except ServiceError as failure:
                failures += 1
                if failures == OUTAGES_ENDURED or not is_transient(failure):
                    raise
                time.sleep(min(30.0, 2.0**failures))
                continue
            failures = 0
            elapsed = time.monotonic() - started
            if step not in (None, seen.step):
                changed = time.monotonic()
            seen = replace(seen, status=status, step=step or seen.step, elapsed_s=elapsed, log="")
            if status in TERMINAL or status == "INACTIVE":
                yield seen
                return
            if follow_log:
                follower = follower or self._follower()
                answer = follower.look() if follower else None
                if answer is not None:
                    seen = seen.with_answer(answer)
            yield seen
            time.sleep(pause_after(elapsed, time.monotonic() - changed))
            looks += 1

    def wait(self, timeout_s: float | None = None) -> RunStatus:
        """Returns when the run has ended or paused. Raises ``ServiceError`` after ``timeout_s``
        seconds.
        """
        if self._ended is not None:
            return self.status()
        for progress in self.watch(follow_log=False):
            if timeout_s is not None and progress.elapsed_s > timeout_s:
                raise ServiceError(
                    f"The run {self.run_id} has not ended within {timeout_s:.0f} s; it goes on."
                )
        return self.status()

    def result(self) -> Container:
        """Waits for the run to end and returns its container.

        Raises ``RunFailedError`` with the flow's own sentence when there is none.
        """
        self._require_success()
        entries = self.logs()
        record = _container_in(self._document()) or next(
            (
                output
                for state in ("RegisterContainer", "ReuseContainer", "ReuseFetched", "ReuseBuilt")
                if (output := output_of(entries, state)) is not None
            ),
            None,
        )
        if record is None:
            raise RunFailedError(
                f"The run {self.run_id} succeeded but names no container; its flow is another one."
            )
        self._remember_worker(output_of(entries, "VerifyImage"))
        # whose catalogue has it; the short record does not say
        known = {"endpoint_id": self._build_endpoint(entries), **record}
        return Container.from_output(self.globus, known, self._deployment)

    def _require_success(self) -> None:
        status = self.wait()
        if status.status == "INACTIVE":
            raise RunFailedError(inactive_reason(self._document()))
        if status.status != "SUCCEEDED":
            failure = self.failure()
            raise RunFailedError(failure.sentence, failure.as_dict(), failure.hint or None)

    def failure(self) -> BuildFailure:
        """Why the run failed. Meaningful only once its status is FAILED."""
        return failure_of(self._document(), self.logs())

    def inactive_reason(self) -> str:
        """Why the run is paused and what to do, in one sentence."""
        return inactive_reason(self._document())

    def cancel(self) -> bool:
        """Cancels the run and stops the build that it may be waiting for.

        Returns whether there was a run to cancel; one that has ended is left as it is. The endpoint
        is asked to stop as far as it can be reached: otherwise the build's own time limit ends it.
        """
        if self.status().is_over:
            return False
        self.globus.flows_pacer.wait()
        try:
            with explained("cancel the run"):
                self.globus.flows.cancel_run(self.run_id)
        except RefusedError:
            if self.status().is_over:
                return False
            raise
        self._stop_steps()
        return True

    def _stop_steps(self) -> None:
        endpoint = self._build_endpoint()
        if endpoint is not None:
            self._tell("abort_build", endpoint, self._control_config, {"run_id": self.run_id})

    def _tell(
        self, function: str, endpoint: str, config: dict[str, Any], what: dict[str, Any]
    ) -> None:
        """Calls a function that clears up after a cancel, as far as its endpoint can be reached."""
        if self._deployment is None:
            return
        function_id = self._deployment.function_id(function)
        try:
            call_function(self.globus, function, function_id, endpoint, config, what, timeout_s=30)
        except CibFlowsError:
            # The run is cancelled all the same, and the endpoint's own limits end what goes on.
            return

    def resume(self) -> None:
        """Lets a paused run go on, after asking for the consent that it lacks.

        Raises ``ServiceError`` when the service refuses.
        """
        run = self._document()
        flow_id = str(run.get("flow_id") or "")
        scopes = list(_values_of(run.get("details"), ("required_scope", "required_scopes")))
        if scopes:
            from globus_sdk.gare import GlobusAuthorizationParameters

            with explained("ask for the consent"):
                self.globus.app.login(
                    auth_params=GlobusAuthorizationParameters(required_scopes=scopes), force=True
                )
        deployment = load_deployment(self.globus)
        is_ours = deployment is not None and any(
            flow.flow_id == flow_id for flow in deployment.flows.values()
        )
        client = self.globus.flow(flow_id, deployment.data_access if deployment and is_ours else ())
        self.globus.flows_pacer.wait()
        with explained("resume the run"):
            client.resume_run(self.run_id)

    @cached_property
    def _control_config(self) -> dict[str, Any]:
        return FlowSource.packaged().control_config

    def _document(self) -> dict[str, Any]:
        """The run as the service has it; one that has ended stays as it is, and is asked for once."""
        if self._ended is not None:
            return self._ended
        self.globus.flows_pacer.wait()
        with explained(f"look up the run {self.run_id}"):
            run = dict(self.globus.flows.get_run(self.run_id).data)
        if run.get("status") in TERMINAL:
            self._ended = run
        return run

    def _newest_step(self) -> str | None:
        return step_in(newest_entries(self.globus, self.run_id))

    def _follower(self) -> LogFollower | None:
        endpoint = self._build_endpoint()
        if endpoint is None or self._deployment is None:
            return None
        try:
            function_id = self._deployment.function_id("watch_build")
        except CibFlowsError:
            return None
        return LogFollower(self.globus, self.run_id, function_id, endpoint, self._control_config)

    def _build_endpoint(self, entries: list[dict[str, Any]] | None = None) -> str | None:
        """Where the run builds: as started here, else as its own first step's log entry says."""
        if self._endpoint_id is None:
            for entry in entries or self.logs():
                details = entry.get("details")
                details = details if isinstance(details, Mapping) else {}
                sent = details.get("input")
                if entry.get("code") == "ActionStarted" and isinstance(sent, Mapping):
                    endpoint = sent.get("endpoint_id")
                    # A larger flow may have asked other endpoints before.
                    if isinstance(endpoint, str) and title_of(str(details.get("state_name"))):
                        self._endpoint_id = endpoint
                        break
        return self._endpoint_id

    def _remember_worker(self, verified: Mapping[str, Any] | None) -> None:
        packages = (verified or {}).get("packages")
        if self._deployment is not None and isinstance(packages, Mapping):
            self._deployment = remember_worker(self.globus, self._deployment, packages)


def _container_in(run: Mapping[str, Any]) -> dict[str, Any] | None:
    details = run.get("details")
    output = details.get("output") if isinstance(details, Mapping) else None
    container = output.get("container") if isinstance(output, Mapping) else None
    return dict(container) if isinstance(container, Mapping) else None


def _values_of(value: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """Strings under any of ``keys``, anywhere in a service's answer."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in keys:
                yield from [inner] if isinstance(inner, str) else [str(part) for part in inner]
            else:
                yield from _values_of(inner, keys)
    elif isinstance(value, list):
        for inner in value:
            yield from _values_of(inner, keys)
