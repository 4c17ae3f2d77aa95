"""What a run is doing, seen from outside, without asking its services too often.

Three things are asked for: the run's status, its newest log entries (for the step), and the build's
own log through the function ``watch_build``. Only the first is needed; a watcher goes on without
the others where the endpoint or the flow does not give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cib_flows.errors import CibFlowsError
from cib_flows.profiles import Globus
from cib_flows.services import explained
from cib_flows.tasks import FunctionCall, start_call

__all__ = [
    "STEP_TITLES",
    "LogFollower",
    "Progress",
    "pause_after",
    "step_in",
    "title_of",
]

STEP_TITLES = {
    "RenderRecipe": "rendering the recipe",
    "TransferPayload": "transferring the payload",
    "FetchPayload": "fetching the payload",
    "BuildImage": "building the image",
    "VerifyImage": "verifying the image",
    "RegisterContainer": "registering the container",
    "ReuseContainer": "reusing an identical image",
    "ReuseFetched": "reusing an identical image",
    "ReuseBuilt": "reusing an identical image",
    "OfferContainer": "checking the container at its source",
    "ExpectContainer": "asking the destination",
    "TransferImage": "transferring the container",
    "ReceiveContainer": "checking and registering it there",
    "DropDelivery": "cleaning up at the destination",
    "ReportDelivery": "finding out what went wrong",
    "EndPublication": "cleaning up at the source",
    "ReportFailure": "finding out what went wrong",
}
GIVE_UP_AFTER = 3


@dataclass(frozen=True)
class Progress:
    """A run at one moment.

    ``step`` is the flow's state, in a larger flow with its prefix, or empty before the first one; ``log``
    is what the build log gained since the last event, ``log_path`` where it lies on the endpoint;
    ``phase`` and ``percent`` are the build's own guess of where it is, where it has one.
    """

    status: str
    step: str
    elapsed_s: float
    log: str = ""
    log_path: str = ""
    phase: str = ""
    percent: float | None = None

    @property
    def step_title(self) -> str:
        return title_of(self.step) or self.step or "starting"

    def with_answer(self, answer: Mapping[str, Any]) -> Progress:
        """The same moment with what ``watch_build`` said about it."""
        percent = answer.get("percent")
        return replace(
            self,
            log=str(answer.get("log") or ""),
            log_path=str(answer.get("log_path") or self.log_path),
            phase=str(answer.get("phase") or ""),
            percent=float(percent) if isinstance(percent, (int, float)) else None,
        )


def title_of(step: str) -> str | None:
    """What a state of our flows does, in words; in a larger flow the state has a prefix."""
    return next((title for name, title in STEP_TITLES.items() if step.endswith(name)), None)


def pause_after(elapsed_s: float, in_step_s: float | None = None) -> float:
    """Seconds to the next look at a run that has taken ``elapsed_s``, and its step ``in_step_s``.

    Short where a step has just begun, so that a cached build ends at once; longer as the run goes on.
    The looks are so few that a pacer holds none of them back.
    """
    since = elapsed_s if in_step_s is None else in_step_s
    if since < 0.3:
        return 0.3
    return 0.8 if since < 20 else min(10.0, max(1.0, elapsed_s / 60))


def step_in(newest_first: list[Mapping[str, Any]]) -> str | None:
    """The flow state that the newest log entries show, or None when they show none."""
    for entry in newest_first:
        name = _state_of(entry)
        if name is not None and title_of(name):
            return name
    return None


def entry_of(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The log entry that a run under way shows as its details; empty where it shows none."""
    details = run.get("details")
    return details if isinstance(details, Mapping) else {}


def names_a_state(entry: Mapping[str, Any]) -> bool:
    """Whether a log entry is of a state at all."""
    return _state_of(entry) is not None


def _state_of(entry: Mapping[str, Any]) -> str | None:
    details = entry.get("details")
    name = details.get("state_name") if isinstance(details, Mapping) else None
    return None if name is None else str(name)


class LogFollower:
    """Follows a run's build log through ``watch_build``, one request per ``look``.

    A look either submits a call or asks for its result, so that slow endpoints cost no more than
    quick ones. After three failures in a row it stops asking.
    """

    def __init__(
        self,
        globus: Globus,
        run_id: str,
        function_id: str,
        endpoint_id: str,
        control_config: Mapping[str, Any],
    ) -> None:
        self._globus = globus
        self._run_id = run_id
        self._function_id = function_id
        self._endpoint_id = endpoint_id
        self._control_config = control_config
        self._call: FunctionCall | None = None
        self._failures = 0
        self._offset = 0

    @property
    def gave_up(self) -> bool:
        return self._failures >= GIVE_UP_AFTER

    def look(self) -> dict[str, Any] | None:
        """What ``watch_build`` returned, if it has; never raises this package's errors."""
        if self.gave_up:
            return None
        try:
            if self._call is None:
                self._call = start_call(
                    self._globus,
                    "watch_build",
                    self._function_id,
                    self._endpoint_id,
                    self._control_config,
                    {"run_id": self._run_id, "offset": self._offset},
                )
                return None
            result = self._call.result()
            if result is None:
                return None
        except CibFlowsError:
            self._call = None
            self._failures += 1
            return None
        self._call = None
        self._failures = 0
        if not result.get("ok"):
            return None
        self._offset = int(result.get("next_offset") or self._offset)
        return result


def newest_entries(globus: Globus, run_id: str, limit: int = 10) -> list[Mapping[str, Any]]:
    """A run's newest log entries, newest first."""
    globus.flows_pacer.wait()
    with explained("read the run's log"):
        page = globus.flows.get_run_logs(run_id, limit=limit, reverse_order=True)
    return list(page.get("entries") or [])
