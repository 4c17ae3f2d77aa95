"""The action providers as the interpreter calls them: same shapes, and nothing done twice."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import globus_sdk
import pytest

from cib_flows.local.actions import ActionProvider, ActionRefused, ActionRequest, ActionStatus
from cib_flows.local.amqp.broker import Broker
from cib_flows.local.compute import wire
from cib_flows.local.compute.couriers import EmbeddedCourier
from cib_flows.local.compute.provider import ComputeProvider
from cib_flows.local.compute.service import ComputeService
from cib_flows.local.compute.user_processes import ConfigurationRefused, EngineTask
from cib_flows.local.database import Database
from cib_flows.local.home import Home
from cib_flows.local.identities import Identities
from cib_flows.local.transfer.provider import transfer_providers
from cib_flows.local.transfer.service import TransferService

from .conftest import LocalGlobus, until

TRANSFER = "https://transfer.actions.globus.org/"


class ScriptedEngines:
    """Stands for the engines: keeps the tasks until the test answers for them."""

    def __init__(self, service: ComputeService) -> None:
        self._service = service
        self.tasks: list[EngineTask] = []
        self.configs: list[Mapping[str, Any]] = []
        self.refusal: str | None = None

    async def ready(self, config: Mapping[str, Any], runtime: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        if self.refusal:
            raise ConfigurationRefused(self.refusal)

    def dispatch(
        self, config: Mapping[str, Any], runtime: Mapping[str, Any], tasks: list[EngineTask]
    ) -> None:
        self.configs.append(config)
        self.tasks += tasks
        for task in tasks:
            self._service.store.take(task.task_id, "a process of the last server")

    async def reattach(self) -> dict[str, set[str]]:
        return {}

    def warm(self) -> None:
        pass

    def remove_old_run_dirs(self) -> None:
        pass

    def succeed(self, task: EngineTask, output: str) -> None:
        body = {"message_type": "result", "data": {"task_id": task.task_id, "data": output}}
        self._service._on_result(task.task_id, json.dumps(body))

    def fail(self, task: EngineTask, traceback: str) -> None:
        self._service._on_result(
            task.task_id, wire.error_result(task.task_id, "RemoteExecutionError", traceback)
        )


class Services:
    """Compute (on scripted engines) and Transfer of one home, in this process."""

    def __init__(self, path: Path) -> None:
        home = Home(path)
        client = home.prepare()
        home.write_site()
        self.home = home
        self.staging_id = client.staging_collection_id
        self.database = Database(home.database_path)
        self.identity = Identities.of_home(home).own.identity
        broker = Broker()
        self.compute = ComputeService(
            self.database,
            home,
            client.endpoint_id,
            self.identity,
            broker,
            EmbeddedCourier(broker, lambda: "amqp://nowhere"),
        )
        self.engines = ScriptedEngines(self.compute)
        self.compute._engines = self.engines  # type: ignore[assignment]
        self.transfer = TransferService(self.database, home, self.identity, retry_delays=())
        self.v3 = ComputeProvider(self.compute, version=3)
        self.v2 = ComputeProvider(self.compute, version=2)
        self.function_id = self.compute.register_function(
            {"function_name": "f", "function_code": "def f(): ...", "serialized": False}
        )

    def request(self, body: dict[str, Any], request_id: str | None = None) -> ActionRequest:
        return ActionRequest(request_id or str(uuid.uuid4()), body, self.identity)

    def v3_body(self, **changes: Any) -> dict[str, Any]:
        return {
            "endpoint_id": self.compute.endpoint_id,
            "tasks": [{"function_id": self.function_id, "kwargs": {"a": 1}}],
            **changes,
        }


@asynccontextmanager
async def services(path: Path) -> AsyncIterator[Services]:
    found = Services(path)
    await found.transfer.start()
    try:
        yield found
    finally:
        await found.transfer.stop()
        found.database.close()


def refusal_of(provider: ActionProvider, request: ActionRequest) -> ActionRefused:
    with pytest.raises(ActionRefused) as refusal:
        asyncio.run(provider.run(request))  # type: ignore[arg-type]
    return refusal.value


# -- Compute -------------------------------------------------------------------------------------


def test_an_action_is_active_until_its_task_is_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with services(tmp_path / "home") as found:
            started = await found.v3.run(found.request(found.v3_body()))
            assert started.status == "ACTIVE"
            assert started.action_id.startswith("tg_")
            assert started.creator_id == found.identity.urn
            waiting = asyncio.ensure_future(found.v3.wait(started.action_id))
            await asyncio.sleep(0)
            assert not waiting.done()
            (task,) = found.engines.tasks
            found.engines.succeed(task, '11\n{"ok": true}')
            done = await waiting
            assert done.status == "SUCCEEDED"
            assert done.details == {
                "result": [{"ok": True}],
                "results": [{"task_id": task.task_id, "output": {"ok": True}}],
            }
            assert done.completion_time is not None
            assert await found.v3.status(started.action_id) == done

    asyncio.run(scenario())


def test_arguments_and_configuration_reach_the_engine(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with services(tmp_path / "home") as found:
            body = found.v3_body(user_endpoint_config={"profile": "build"})
            await found.v3.run(found.request(body))
            assert found.engines.configs == [{"profile": "build"}]
            assert found.engines.tasks[0].buffer.endswith('5\n11\n[]11\n11\n{"a": 1}')
            assert found.engines.tasks[0].result_serializers == [wire.JSON_SERIALIZER]

    asyncio.run(scenario())


def test_an_action_fails_when_every_task_failed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with services(tmp_path / "home") as found:
            two = [{"function_id": found.function_id}] * 2
            for failures, status in ((1, "SUCCEEDED"), (2, "FAILED")):
                found.engines.tasks.clear()
                started = await found.v3.run(found.request(found.v3_body(tasks=two)))
                first, second = found.engines.tasks
                found.engines.fail(first, "Traceback: no")
                if failures == 2:
                    found.engines.fail(second, "Traceback: no again")
                else:
                    found.engines.succeed(second, "11\n5")
                done = await found.v3.wait(started.action_id)
                assert done.status == status
                assert done.details["results"][0]["output"] == "Traceback: no"

    asyncio.run(scenario())


def test_a_repeated_request_starts_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with services(tmp_path / "home") as found:
            request = found.request(found.v3_body())
            first, second = await asyncio.gather(found.v3.run(request), found.v3.run(request))
            third = await found.v3.run(request)
            assert first.action_id == second.action_id == third.action_id
            assert len(found.engines.tasks) == 1

    asyncio.run(scenario())


def test_an_action_outlives_the_server(tmp_path: Path) -> None:
    async def first_life() -> ActionRequest:
        async with services(tmp_path / "home") as found:
            request = found.request(found.v3_body())
            await found.v3.run(request)
            return request

    async def second_life(request: ActionRequest) -> ActionStatus:
        async with services(tmp_path / "home") as found:
            for task in found.compute.store.open_tasks():
                found.compute._on_lost(task.id, "it was restarted")
            again = await found.v3.run(request)
            assert found.engines.tasks == []
            return await found.v3.wait(again.action_id)

    done = asyncio.run(second_life(asyncio.run(first_life())))
    assert done.status == "FAILED"
    assert done.details["result"] == ["it was restarted"]


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({"endpoint_id": str(uuid.UUID(int=7))}, 404, "Endpoint"),
        ({"endpoint_id": None}, 422, "endpoint_id"),
        ({"endpoint_id": "here"}, 422, "endpoint_id"),
        ({"tasks": []}, 422, "tasks"),
        ({"tasks": [{}]}, 422, "function_id"),
        ({"tasks": [{"function_id": str(uuid.UUID(int=7))}]}, 404, "Function"),
        ({"tasks": [{"function_id": "f", "args": {}}]}, 422, "args"),
        ({"tasks": [{"function_id": "f", "payload": {}}]}, 422, "payload"),
        ({"function": "f"}, 422, "function"),
        ({"user_endpoint_config": "build"}, 422, "user_endpoint_config"),
    ],
)
def test_a_body_that_the_service_refuses_is_refused(
    tmp_path: Path, changes: dict[str, Any], status: int, word: str
) -> None:
    found = Services(tmp_path / "home")
    refusal = refusal_of(found.v3, found.request(found.v3_body(**changes)))
    assert refusal.status_code == status
    assert set(refusal.body) == {"code", "message"}
    assert word in refusal.body["message"]


def test_a_refused_configuration_leaves_no_action(tmp_path: Path) -> None:
    found = Services(tmp_path / "home")
    found.engines.refusal = "user_endpoint_config.profile: no such profile"
    request = found.request(found.v3_body())
    refusal = refusal_of(found.v3, request)
    assert (refusal.status_code, refusal.body["code"]) == (422, "SEMANTICALLY_INVALID")
    assert "no such profile" in refusal.body["message"]
    assert found.compute.store.action_of_request(request.request_id) is None


def test_version_two_takes_arguments_as_values_or_json_texts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with services(tmp_path / "home") as found:
            endpoint, function = found.compute.endpoint_id, found.function_id
            for body in (
                {"endpoint": endpoint, "function": function, "kwargs": {"a": 1}},
                {"endpoint": endpoint, "function": function, "payload": '{"a": 1}'},
                {"tasks": [{"endpoint": endpoint, "function": function, "args": {"a": 1}}]},
            ):
                found.engines.tasks.clear()
                await found.v2.run(found.request(body))
                assert found.engines.tasks[0].buffer.endswith('11\n{"a": 1}'), body

    asyncio.run(scenario())


# -- Transfer ------------------------------------------------------------------------------------


def test_a_transfer_action_holds_the_task_document(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with services(tmp_path / "home") as found:
            provider = transfer_providers(found.transfer)[TRANSFER + "transfer"]
            (found.home.staging_dir / "x").write_text("x")
            body = {
                "source_endpoint": found.staging_id,
                "destination_endpoint": found.staging_id,
                "DATA": [{"source_path": "/x", "destination_path": "/y"}],
                "label": "payload",
            }
            request = found.request(body)
            started = await provider.run(request)
            done = await provider.wait(started.action_id)
            assert (done.status, done.details["status"]) == ("SUCCEEDED", "SUCCEEDED")
            assert done.details["files_transferred"] == 1
            assert done.label == done.details["label"] == "payload"
            assert (await provider.run(request)).action_id == started.action_id
            assert found.transfer.store.count_tasks(found.identity.id) == 1

    asyncio.run(scenario())


def test_a_transfer_that_fails_is_a_failed_action(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with services(tmp_path / "home") as found:
            providers = transfer_providers(found.transfer)
            body = {
                "source_endpoint": found.staging_id,
                "destination_endpoint": found.staging_id,
                "DATA": [{"source_path": "/nowhere", "destination_path": "/y"}],
            }
            started = await providers[TRANSFER + "transfer"].run(found.request(body))
            done = await providers[TRANSFER + "transfer"].wait(started.action_id)
            assert done.status == "FAILED"
            assert done.details["fatal_error"]["code"] == "FILE_NOT_FOUND"

    asyncio.run(scenario())


def test_operations_are_done_at_once_and_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with services(tmp_path / "home") as found:
            providers = transfer_providers(found.transfer)

            async def run(name: str, request: ActionRequest) -> ActionStatus:
                return await providers[TRANSFER + name].run(request)

            body = {"endpoint_id": found.staging_id, "path": "/made"}
            request = found.request(body)
            first, again = await run("mkdir", request), await run("mkdir", request)
            assert (first.status, again) == ("SUCCEEDED", first)
            assert (await run("mkdir", found.request(body))).status == "FAILED"
            listing = await run("ls", found.request({"endpoint_id": found.staging_id}))
            assert [entry["name"] for entry in listing.details["DATA"]] == ["made"]
            stat = await run("stat", found.request(body))
            assert (stat.details["DATA_TYPE"], stat.details["type"]) == ("file", "dir")
            body = {"endpoint_id": found.staging_id, "path": "/nowhere"}
            missing = await run("stat", found.request(body))
            assert (missing.status, missing.details["code"]) == ("FAILED", "NotFound")
            info = await run("collection_info", found.request(body))
            assert info.details["display_name"] == "staging"

    asyncio.run(scenario())


def test_a_listing_is_filtered_ordered_and_cut(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with services(tmp_path / "home") as found:
            ls = transfer_providers(found.transfer)[TRANSFER + "ls"]
            for name, size in (("a.h5", 1), ("b.h5", 3), ("c.h5", 2), ("d.txt", 9), (".e.h5", 0)):
                (found.home.staging_dir / name).write_text("x" * size)

            async def listed(**options: Any) -> ActionStatus:
                body = {"endpoint_id": found.staging_id, "path": "/", **options}
                return await ls.run(found.request(body))

            done = await listed(
                filter="name:~*.h5", orderby="size DESC", show_hidden=False, limit=1, offset=1
            )
            assert [entry["name"] for entry in done.details["DATA"]] == ["c.h5"]
            for wrong in ({"limit": "all"}, {"offset": -1}, {"show_hidden": 1}, {"filter": 5}):
                refused = await listed(**wrong)
                assert refused.status == "FAILED", wrong
                assert next(iter(wrong)) in refused.details["message"]

    asyncio.run(scenario())


def test_a_transfer_without_its_collections_is_refused(tmp_path: Path) -> None:
    found = Services(tmp_path / "home")
    providers = transfer_providers(found.transfer)
    for name in ("transfer", "delete", "ls", "mkdir", "stat"):
        refusal = refusal_of(providers[TRANSFER + name], found.request({"path": "/x"}))
        assert refusal.status_code == 400, name


# -- in a flow -----------------------------------------------------------------------------------


def test_a_flow_runs_a_function_and_a_transfer(
    local_globus: LocalGlobus, make_flow: Callable[[dict[str, Any]], Any]
) -> None:
    function_id = local_globus.register("def double(n):\n    return {'twice': 2 * n}\n")
    name = uuid.uuid4().hex
    (local_globus.home.staging_dir / name).write_text("payload")
    action = {"Type": "Action", "WaitTime": 60, "ExceptionOnActionFailure": True}
    states = {
        "Double": {
            **action,
            "ActionUrl": "https://compute.actions.globus.org/v3",
            "Parameters": {
                "endpoint_id": local_globus.endpoint_id,
                "user_endpoint_config": {"profile": "control"},
                "tasks": [{"function_id": function_id, "kwargs": {"n.$": "$.n"}}],
            },
            "ResultPath": "$.doubled",
            "Next": "Copy",
        },
        "Copy": {
            **action,
            "ActionUrl": TRANSFER + "transfer",
            "Parameters": {
                "source_endpoint": local_globus.staging_id,
                "destination_endpoint": local_globus.staging_id,
                "DATA": [{"source_path": f"/{name}", "destination_path": f"/{name}-copy"}],
            },
            "ResultPath": "$.copied",
            "End": True,
        },
    }
    flow = make_flow({"StartAt": "Double", "States": states})
    run_id = flow.run_flow({"n": 21})["run_id"]

    def poll() -> Any:
        run = local_globus.flows.get_run(run_id)
        return run if run["status"] != "ACTIVE" else None

    run = until(poll)
    assert run["status"] == "SUCCEEDED", run["details"]
    output = run["details"]["output"]
    assert output["doubled"]["details"]["result"] == [{"twice": 42}]
    assert output["copied"]["details"]["files_transferred"] == 1
    assert (local_globus.home.staging_dir / f"{name}-copy").read_text() == "payload"


@pytest.fixture
def make_flow(local_globus: LocalGlobus) -> Callable[[dict[str, Any]], Any]:
    def make(definition: dict[str, Any]) -> globus_sdk.SpecificFlowClient:
        flow_id = local_globus.flows.create_flow("test", definition, {})["id"]
        return globus_sdk.SpecificFlowClient(flow_id, app=local_globus.app)

    return make
