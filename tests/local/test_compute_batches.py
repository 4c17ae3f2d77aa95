"""Batches, task groups, allow-lists and the 10 MB limits, through the unmodified SDKs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
from globus_sdk.testing import get_response_set

from .conftest import JSON_DATA, LocalGlobus, pack, run_client, value

ECHO = "def echo(*args, **kwargs):\n    return [list(args), kwargs]\n"
FAIL = "def fail():\n    raise ValueError('this is why')\n"
FILL = "def fill(size):\n    return 'x' * size\n"
LENGTH = "def length(text):\n    return len(text)\n"
LIMIT = 10 * 1024 * 1024
CONTROL = {"user_endpoint_config": {"profile": "control"}, "result_serializers": [JSON_DATA]}


def refused(call: Callable[[], Any]) -> globus_sdk.GlobusAPIError:
    with pytest.raises(globus_sdk.GlobusAPIError) as refusal:
        call()
    return refusal.value


def keys_of(method: str) -> set[str]:
    document = get_response_set(f"compute.{method}").lookup("default").json
    assert isinstance(document, dict)
    return set(document)


# -- limits ----------------------------------------------------------------------------------------


def test_a_submission_just_below_the_limit_is_taken(local_globus: LocalGlobus) -> None:
    text = "x" * (LIMIT - 1000)
    assert value(local_globus.call(LENGTH, text)) == len(text)


def test_the_limit_is_the_whole_batchs(local_globus: LocalGlobus) -> None:
    function_id = local_globus.register(LENGTH)
    part = pack(["x" * (LIMIT // 3)], {})
    group_id = str(uuid.uuid4())
    body = {"tasks": {function_id: [part] * 4}, "task_group_id": group_id, **CONTROL}
    refusal = refused(lambda: local_globus.compute_v3.submit(local_globus.endpoint_id, body))
    assert refusal.http_status == 413
    missing = refused(lambda: local_globus.compute_v2.get_task_group(group_id))
    assert missing.http_status == 404, "nothing of a refused batch is kept"


def test_a_function_above_the_limit_is_refused(local_globus: LocalGlobus) -> None:
    refusal = refused(lambda: local_globus.register(ECHO + "#" + "x" * LIMIT))
    assert (refusal.http_status, refusal.code) == (413, "PAYLOAD_TOO_LARGE")


def test_a_result_above_the_limit_fails_its_task_only(local_globus: LocalGlobus) -> None:
    function_id = local_globus.register(FILL)
    body = {"tasks": {function_id: [pack([LIMIT], {}), pack([10], {})]}, **CONTROL}
    answer = local_globus.compute_v3.submit(local_globus.endpoint_id, body)
    large, small = answer["tasks"][function_id]
    lost = local_globus.finished(large)
    assert lost["status"] == "failed"
    assert "MaxResultSizeExceeded" in lost["exception"]
    assert value(local_globus.finished(small)) == "x" * 10


# -- task groups -----------------------------------------------------------------------------------


def test_a_group_grows_with_each_batch(local_globus: LocalGlobus) -> None:
    function_id = local_globus.register(ECHO)
    first = local_globus.compute_v3.submit(
        local_globus.endpoint_id, {"tasks": {function_id: [pack([1], {})]}, **CONTROL}
    )
    group_id = first["task_group_id"]
    second = local_globus.compute_v3.submit(
        local_globus.endpoint_id,
        {"tasks": {function_id: [pack([2], {})]}, "task_group_id": group_id, **CONTROL},
    )
    assert second["task_group_id"] == group_id
    group = local_globus.compute_v2.get_task_group(group_id).data
    assert isinstance(group, dict)
    assert set(group) == keys_of("v2.get_task_group")
    assert [task["id"] for task in group["tasks"]] == [
        *first["tasks"][function_id],
        *second["tasks"][function_id],
    ]


def test_one_unknown_function_refuses_the_whole_batch(local_globus: LocalGlobus) -> None:
    known, unknown = local_globus.register(ECHO), str(uuid.uuid4())
    group_id = str(uuid.uuid4())
    body = {
        "tasks": {known: [pack([1], {})], unknown: [pack([1], {})]},
        "task_group_id": group_id,
        **CONTROL,
    }
    refusal = refused(lambda: local_globus.compute_v3.submit(local_globus.endpoint_id, body))
    assert (refusal.http_status, refusal.code) == (404, "FUNCTION_NOT_FOUND")
    assert refused(lambda: local_globus.compute_v2.get_task_group(group_id)).http_status == 404


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"tasks": {}}, "at least one task"),
        ({"tasks": []}, "tasks must map"),
        ({"tasks": {"{function}": "text"}}, "tasks must map"),
        ({"tasks": {"{function}": [3]}}, "tasks must map"),
        ({"task_group_id": "mine"}, "task_group_id is not a UUID"),
        ({"user_endpoint_config": []}, "user_endpoint_config must be an object"),
        ({"result_serializers": "json"}, "result_serializers must be a list"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_batch_of_the_wrong_shape_names_the_field(
    local_globus: LocalGlobus, body: dict[str, Any], words: str
) -> None:
    function_id = local_globus.register(ECHO)
    tasks = json.loads(json.dumps(body).replace("{function}", function_id))
    whole = {"tasks": {function_id: [pack([], {})]}, **CONTROL, **tasks}
    refusal = refused(lambda: local_globus.compute_v3.submit(local_globus.endpoint_id, whole))
    assert refusal.http_status == 422
    assert words in str(refusal.message)


def test_the_version_two_batch(local_globus: LocalGlobus) -> None:
    echo, fail = local_globus.register(ECHO), local_globus.register(FAIL)
    endpoint = local_globus.endpoint_id
    tasks = [[echo, endpoint, pack([1], {})], [fail, endpoint, pack([], {})]]
    answer = local_globus.compute_v2.submit({"tasks": tasks, **CONTROL}).data
    assert isinstance(answer, dict)
    assert set(answer) == keys_of("v2.submit")
    good, bad = [result["task_uuid"] for result in answer["results"]]
    assert value(local_globus.finished(good))[0] == [1]
    assert "this is why" in local_globus.finished(bad)["exception"]
    group = local_globus.compute_v2.get_task_group(answer["task_group_id"])
    assert [task["id"] for task in group["tasks"]] == [good, bad]
    two = [tasks[0], [echo, str(uuid.uuid4()), tasks[0][2]]]
    assert refused(lambda: local_globus.compute_v2.submit({"tasks": two})).http_status == 400


# -- allow-lists -----------------------------------------------------------------------------------


@pytest.fixture
def restricted(
    own_globus: Callable[..., LocalGlobus],
) -> tuple[LocalGlobus, str, str, Path]:
    """A home whose endpoint's configuration allows the first of two functions."""
    globus = own_globus()
    allowed, other = globus.register(ECHO), globus.register(ECHO)
    config = globus.home.endpoint_dir / "config.yaml"
    config.write_text(config.read_text() + f"\nallowed_functions: [{allowed}]\n")
    return globus, allowed, other, config


def test_an_endpoint_that_allows_everything_says_so(local_globus: LocalGlobus) -> None:
    answer = local_globus.compute_v3.get_endpoint_allowlist(local_globus.endpoint_id)
    assert answer.data == {
        "endpoint_id": local_globus.endpoint_id,
        "restricted": False,
        "functions": [],
    }


def test_a_list_in_the_configuration_binds_every_profile(
    restricted: tuple[LocalGlobus, str, str, Path],
) -> None:
    globus, allowed, other, _ = restricted
    listed = globus.compute_v3.get_endpoint_allowlist(globus.endpoint_id).data
    assert isinstance(listed, dict)
    assert set(listed) == keys_of("v3.get_endpoint_allowlist")
    assert (listed["restricted"], listed["functions"]) == (True, [allowed])
    assert value(globus.finished(globus.submit(allowed, 1)[0]))[0] == [1]
    for config in ({"profile": "control"}, {"profile": "build"}, {}):
        refusal = refused(lambda c=config: globus.submit(other, user_endpoint_config=c))  # type: ignore[misc]
        assert (refusal.http_status, refusal.code) == (403, "FUNCTION_NOT_PERMITTED")
        assert other in str(refusal.message)


def test_a_profiles_own_list_is_none_of_the_services(
    own_globus: Callable[..., LocalGlobus],
) -> None:
    """``run`` is there for any function: the service knows of no list, the process obeys its own."""
    globus = own_globus()
    allowed, other = globus.register(ECHO), globus.register(ECHO)
    (globus.home.endpoint_dir / "allowed_functions.yaml").write_text(
        f"allowed_functions: [{allowed}]\n"
    )
    assert globus.compute_v3.get_endpoint_allowlist(globus.endpoint_id)["restricted"] is False
    task_id = globus.submit(other, user_endpoint_config={"profile": "build"})[0]
    assert "not permitted" in globus.finished(task_id)["exception"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("allowed_functions: [nothing]\n", "'nothing' is not a function id"),
        ("allowed_functions: all\n", "must be a list of function ids"),
        ("allowed_functions: [\n", "is not YAML"),
    ],
)
def test_a_list_that_makes_no_sense_lets_nothing_run(
    restricted: tuple[LocalGlobus, str, str, Path], text: str, words: str
) -> None:
    globus, allowed, _, config = restricted
    config.write_text(text)
    for call in (
        lambda: globus.submit(allowed),
        lambda: globus.compute_v3.get_endpoint_allowlist(globus.endpoint_id),
    ):
        refusal = refused(call)
        assert refusal.http_status == 422
        assert words in str(refusal.message)


# -- the Compute SDK -------------------------------------------------------------------------------

PREAMBLE = """
import json, os, time
from globus_compute_sdk import Client, Executor
from globus_compute_sdk.errors import TaskExecutionFailed, TaskPending
import logging
from globus_compute_sdk.serialize import AllCodeStrategies, ComputeSerializer, JSONData

endpoint = os.environ["CIB_FLOWS_BUILD_ENDPOINT"]
JSON = "globus_compute_sdk.serialize.JSONData"

def batch_of(client, name, *arguments, group=None):
    batch = client.create_batch(
        task_group_id=group, user_endpoint_config={"profile": "control"}, result_serializers=[JSON]
    )
    for each in arguments:
        batch.add(name, args=each)
    return batch

# This SDK logs the tasks that failed and leaves them out of a batch's results.
logging.getLogger("globus_compute_sdk").setLevel(logging.CRITICAL)

def ended(client, tasks):
    while any(found["pending"] for found in client.get_batch_result(tasks).values()):
        time.sleep(0.05)
    return client.get_batch_result(tasks)

def failure(client, task):
    try:
        return client.get_result(task)
    except TaskExecutionFailed as problem:
        return str(problem)
"""


@pytest.fixture
def compute_door(local_globus: LocalGlobus) -> LocalGlobus:
    record = local_globus.home.running()
    assert record is not None
    if record.compute_port is None:
        pytest.skip("port 5000, the only one this SDK knows, is taken on this machine")
    return local_globus


def run(globus: LocalGlobus, program: str, tmp_path: Path) -> Any:
    return json.loads(run_client(globus.environment, PREAMBLE + program, tmp_path))


def test_batches_of_the_compute_sdk(compute_door: LocalGlobus, tmp_path: Path) -> None:
    program = """
client = Client(data_serialization_strategy=JSONData())
echo = client.register_source_code("def echo(n):\\n    return n\\n", "echo")
fail = client.register_source_code("def fail():\\n    raise ValueError('this is why')\\n", "fail")
batch = batch_of(client, echo, (1,), (2,))
batch.add(fail)
first = client.batch_run(endpoint, batch)
second = client.batch_run(endpoint, batch_of(client, echo, (3,), group=first["task_group_id"]))
good = first["tasks"][echo] + second["tasks"][echo]
(bad,) = first["tasks"][fail]
found = ended(client, [*good, bad])
waiting = client.register_source_code("def rest():\\n    import time\\n    time.sleep(1)\\n", "rest")
(slow,) = client.batch_run(endpoint, batch_of(client, waiting, ()))["tasks"][waiting]
try:
    client.get_result(slow)
    pending = False
except TaskPending:
    pending = client.get_task(slow)["pending"]
print(json.dumps({
    "keys": sorted(first),
    "groups": first["task_group_id"] == second["task_group_id"],
    "results": [client.get_result(task) for task in good],
    "found": sorted(found) == sorted(good),
    "bad": "ValueError: this is why" in failure(client, bad),
    "pending": pending,
}))
"""
    assert run(compute_door, program, tmp_path) == {
        "keys": ["endpoint_id", "request_id", "task_group_id", "tasks"],
        "groups": True,
        "results": [1, 2, 3],
        "found": True,
        "bad": True,
        "pending": True,
    }


def test_limits_as_the_compute_sdk_meets_them(compute_door: LocalGlobus, tmp_path: Path) -> None:
    program = """
client = Client(data_serialization_strategy=JSONData())
fill = client.register_source_code("def fill(n, text=''):\\n    return 'x' * n\\n", "fill")
try:
    client.batch_run(endpoint, batch_of(client, fill, (1, "x" * 6_000_000), (1, "x" * 6_000_000)))
except Exception as problem:
    refused = [type(problem).__name__, problem.http_status]
tasks = client.batch_run(endpoint, batch_of(client, fill, (11_000_000,)))["tasks"][fill]
ended(client, tasks)
print(json.dumps({"refused": refused, "exception": failure(client, tasks[0])}))
"""
    told = run(compute_door, program, tmp_path)
    assert told["refused"] == ["ComputeAPIError", 413]
    assert "MaxResultSizeExceeded" in told["exception"]


def test_an_executor_takes_up_the_tasks_of_a_group(
    compute_door: LocalGlobus, tmp_path: Path
) -> None:
    program = """
serializer = ComputeSerializer(strategy_code=AllCodeStrategies(), strategy_data=JSONData())
def executor(group=None):
    return Executor(
        endpoint, serializer=serializer, result_serializers=[JSONData()], task_group_id=group,
        user_endpoint_config={"profile": "control"}, api_burst_limit=8, api_burst_window_s=1,
    )
with executor() as pool:
    name = pool.register_source_code("def echo(n):\\n    return n\\n", "echo")
    first = [pool.submit_to_registered_function(name, args=(n,)) for n in range(5)]
    got = [future.result(60) for future in first]
    group = str(pool.task_group_id)
with executor(group) as pool:
    again = [future.result(60) for future in pool.reload_tasks()]
print(json.dumps([got, again]))
"""
    got, again = run(compute_door, program, tmp_path)
    assert got == list(range(5))
    assert again == got
