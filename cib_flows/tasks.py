"""Calling a registered function once, outside a flow, with JSON in and out.

The wire form is that of the Compute SDK's ``JSONData`` strategy, written here because it is five
lines and importing the SDK takes longer than most of these calls; a test compares the two.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any

from cib_flows.errors import ServiceError
from cib_flows.profiles import Globus
from cib_flows.services import explained

__all__ = [
    "FunctionCall",
    "call_function",
    "last_words",
    "pack_arguments",
    "start_call",
    "unpack_result",
]

JSON_IDENTIFIER = "11\n"
JSON_STRATEGY = "globus_compute_sdk.serialize.JSONData"


@dataclass(frozen=True)
class FunctionCall:
    """A function that was submitted and may not have finished."""

    globus: Globus
    task_id: str
    function: str

    def result(self) -> dict[str, Any] | None:
        """What the function returned, or None while it runs.

        Raises ``ServiceError`` when the task failed, which a function of this project does only on
        a bug.
        """
        self.globus.compute_pacer.wait()
        with explained(f"ask for the result of {self.function}"):
            task = self.globus.compute_v2.get_task(self.task_id).data
        if task.get("exception") is not None:
            reason = last_words(str(task["exception"])) or "no reason was given"
            raise ServiceError(f"The endpoint could not run {self.function}: {reason}")
        if task.get("result") is None:
            if str(task.get("status", "")).lower() == "failed":
                raise ServiceError(f"The endpoint could not run {self.function}.")
            return None
        return unpack_result(task["result"])


def last_words(text: str) -> str:
    """The last line of a failure that says something, for the worker puts a frame around its own;
    empty where none does.
    """
    lines = [line.strip() for line in text.splitlines() if any(c.isalnum() for c in line)]
    return lines[-1][:500] if lines else ""


def start_call(
    globus: Globus,
    function: str,
    function_id: str,
    endpoint_id: str,
    user_endpoint_config: Mapping[str, Any],
    kwargs: Mapping[str, Any],
) -> FunctionCall:
    """Submits one call. ``function`` is its name, for messages.

    Raises ``ServiceError`` when Globus Compute or the endpoint refuses it.
    """
    globus.compute_pacer.wait()
    with explained(f"run {function} on the endpoint {endpoint_id}"):
        answer = globus.compute.submit(
            endpoint_id,
            {
                "tasks": {function_id: [pack_arguments(kwargs)]},
                "user_endpoint_config": dict(user_endpoint_config),
                "user_runtime": _user_runtime(),
                "result_serializers": [JSON_STRATEGY],
                "create_queue": False,
            },
        )
    return FunctionCall(globus, str(answer["tasks"][function_id][0]), function)


def call_function(
    globus: Globus,
    function: str,
    function_id: str,
    endpoint_id: str,
    user_endpoint_config: Mapping[str, Any],
    kwargs: Mapping[str, Any],
    timeout_s: float = 120.0,
) -> dict[str, Any]:
    """Submits one call and waits for what it returns.

    Raises ``ServiceError`` when it is refused, fails, or has not returned after ``timeout_s``
    seconds.
    """
    call = start_call(globus, function, function_id, endpoint_id, user_endpoint_config, kwargs)
    deadline = time.monotonic() + timeout_s
    pause = 0.1
    while True:
        time.sleep(pause)
        result = call.result()
        if result is not None:
            return result
        if time.monotonic() > deadline:
            raise ServiceError(
                f"The endpoint {endpoint_id} has not run {function} within {timeout_s:.0f} s.",
                hint="The endpoint may be offline, or its batch queue may be long.",
            )
        pause = min(pause * 1.5, 3.0)


@lru_cache(maxsize=1)
def _user_runtime() -> dict[str, str]:
    return {
        "globus_compute_sdk_version": metadata.version("globus-compute-sdk"),
        "globus_sdk_version": metadata.version("globus-sdk"),
        "python_version": sys.version,
    }


def pack_arguments(kwargs: Mapping[str, Any]) -> str:
    """A call's arguments (keyword arguments only) as Globus Compute takes them."""
    buffers = [JSON_IDENTIFIER + json.dumps([]), JSON_IDENTIFIER + json.dumps(dict(kwargs))]
    return "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)


def unpack_result(packed: str) -> dict[str, Any]:
    """The JSON object in a task's result.

    Raises ``ServiceError`` when it was written in another way; nothing but JSON is ever decoded.
    """
    text = packed
    length, separator, rest = packed.partition("\n")
    if separator and length.isdigit() and rest.startswith(JSON_IDENTIFIER):
        text = rest[: int(length)]
    if not text.startswith(JSON_IDENTIFIER):
        raise ServiceError("A task's result is not in JSON, so it was not read.")
    try:
        result = json.loads(text[len(JSON_IDENTIFIER) :])
    except ValueError:
        raise ServiceError("A task's result is not valid JSON.") from None
    if not isinstance(result, dict):
        raise ServiceError("A task's result is not a JSON object.")
    return result
