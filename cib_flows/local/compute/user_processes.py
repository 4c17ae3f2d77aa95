"""A user endpoint process as the server sees it, and what it is told and given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cib_flows.local.compute import framing
from cib_flows.local.compute.lines import Line

__all__ = ["ConfigurationRefused", "EngineTask", "UserProcess", "configuration_key"]


class ConfigurationRefused(Exception):
    """The endpoint's schema, template or engine refused a ``user_endpoint_config``; one
    sentence."""


@dataclass(frozen=True)
class EngineTask:
    """What an engine needs to know of a task."""

    task_id: str
    function_id: str
    buffer: str
    resource_specification: dict[str, Any] | None = None
    result_serializers: list[str] | None = None

    def message(self) -> framing.Message:
        return {
            "op": "task",
            "task_id": self.task_id,
            "function_id": self.function_id,
            "buffer": self.buffer,
            "resource_specification": self.resource_specification,
            "result_serializers": self.result_serializers,
        }


@dataclass(eq=False)
class UserProcess:
    """One user endpoint process, as the server sees it."""

    line: Line
    key: str = ""
    run_dir: str = ""
    engine: str = ""
    idle_after_s: float | None = None
    tasks: dict[str, EngineTask] = field(default_factory=dict)
    closing: bool = False
    idle_timer: asyncio.TimerHandle | None = None
    listener: asyncio.Task[None] | None = None

    def send(self, message: framing.Message) -> None:
        self.line.writer.write(framing.encode(message))

    def hang_up(self) -> None:
        """Order it to shut down."""
        self.closing = True
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        if not self.line.writer.is_closing():
            self.send({"op": "shutdown"})
            self.line.hang_up()


def configuration_key(config: Mapping[str, Any]) -> str:
    """The same text for the same configuration, however its keys are ordered."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"))
