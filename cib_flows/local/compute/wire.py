"""The Compute service's own texts: packed buffers, serialized code and data, result messages.

The SDK has code for these, but importing it takes longer than the whole server may take to start.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = [
    "JSON_SERIALIZER",
    "ComputeError",
    "error_result",
    "load_json_data",
    "pack_arguments",
    "pack_buffers",
    "pack_source",
    "pack_task",
    "transitions",
]

JSON_SERIALIZER = "globus_compute_sdk.serialize.JSONData"

_JSON_DATA = "11\n"
_SOURCE_TEXT = "st\n"


class ComputeError(Exception):
    """A request the Compute service refuses, in its own words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    @property
    def body(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message}


def pack_buffers(*buffers: str) -> str:
    return "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)


def pack_source(name: str, source: str) -> str:
    """Function text as ``register_source_code`` sends it, in the form that a worker loads."""
    return pack_buffers(f"{_SOURCE_TEXT}{name}:{source}")


def pack_arguments(args: list[Any], kwargs: dict[str, Any]) -> str:
    return pack_buffers(_JSON_DATA + json.dumps(args), _JSON_DATA + json.dumps(kwargs))


def pack_task(task_id: str, buffer: str) -> bytes:
    """The message that an endpoint takes a task from."""
    data = {"task_id": task_id, "container_id": None, "container": None, "task_buffer": buffer}
    return b"\x01" + json.dumps({"message_type": "task", "data": data}).encode()


def load_json_data(data: str) -> Any:
    """The value of a JSON-serialized result. Raises ValueError for any other serialization."""
    if not data.startswith(_JSON_DATA):
        raise ValueError("the result is not serialized as JSON")
    return json.loads(data.removeprefix(_JSON_DATA))


def error_result(task_id: str, code: str, sentence: str) -> str:
    """A failed task's result message, for a task that no worker can answer for."""
    return json.dumps(
        {
            "message_type": "result",
            "data": {
                "task_id": task_id,
                "data": sentence,
                "details": None,
                "error_details": {"code": code, "user_message": sentence},
                "task_statuses": [],
            },
        }
    )


def transitions(statuses: list[dict[str, Any]] | None) -> dict[str, float]:
    """A result's task transitions as the task document shows them, in seconds."""
    return {
        str(status["state"]): float(status["timestamp"]) / 1e9
        for status in statuses or []
        if "state" in status and "timestamp" in status
    }
