"""What an Executor's queue holds, over the life of more than one server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from cib_flows.local.amqp.broker import Broker
from cib_flows.local.compute import wire
from cib_flows.local.compute.service import Submission

from .test_providers import Services


def result_of(packed: bytes) -> str:
    assert packed[:1] == b"\x01", "the version byte of the SDK's message format"
    text: str = json.loads(packed[1:])["data"]["data"]
    return text


def submit(services: Services, create_queue: bool) -> str:
    """Two tasks that succeed; returns their group."""
    submission = Submission(
        services.compute.endpoint_id,
        [(services.function_id, wire.pack_arguments([], {}))] * 2,
        create_queue=create_queue,
    )
    submitted = asyncio.run(services.compute.submit(submission))
    for number, task in enumerate(services.engines.tasks):
        services.engines.succeed(task, f"11\n{number}")
    return submitted.group_id


def broker_of(services: Services) -> Broker:
    return services.compute._broker


def test_a_queue_gets_each_result_once(tmp_path: Path) -> None:
    services = Services(tmp_path / "home")
    queue = broker_of(services).find("tg." + submit(services, create_queue=True))
    assert queue is not None
    assert [result_of(message.body()) for message in queue.ready] == ["11\n0", "11\n1"]


def test_a_group_without_a_queue_has_none(tmp_path: Path) -> None:
    services = Services(tmp_path / "home")
    group_id = submit(services, create_queue=False)
    assert broker_of(services).find("tg." + group_id) is None
    assert broker_of(services).find("tg.") is None
    assert broker_of(services).find(group_id) is None


def test_after_a_restart_the_queue_holds_what_nobody_acknowledged(tmp_path: Path) -> None:
    first = Services(tmp_path / "home")
    name = "tg." + submit(first, create_queue=True)
    queue = broker_of(first).find(name)
    assert queue is not None
    queue.ready.popleft().on_acknowledged()

    second = Services(tmp_path / "home")
    queue = broker_of(second).find(name)
    assert queue is not None
    assert [result_of(message.body()) for message in queue.ready] == ["11\n1"]
    queue.ready.popleft().on_acknowledged()

    third = Services(tmp_path / "home")
    queue = broker_of(third).find(name)
    assert queue is not None
    assert not queue.ready


def test_a_lost_task_reaches_its_queue_as_a_failure(tmp_path: Path) -> None:
    services = Services(tmp_path / "home")
    submission = Submission(
        services.compute.endpoint_id,
        [(services.function_id, wire.pack_arguments([], {}))],
        create_queue=True,
    )
    group_id = asyncio.run(services.compute.submit(submission)).group_id
    again = Services(tmp_path / "home")
    asyncio.run(again.compute.start())
    queue = broker_of(again).find("tg." + group_id)
    assert queue is not None
    (message,) = queue.ready
    data = json.loads(message.body()[1:])["data"]
    assert data["error_details"]["code"] == "TASK_LOST"
    assert "restarted" in data["data"]
