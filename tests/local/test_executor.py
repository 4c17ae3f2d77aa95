"""The unmodified ``globus_compute_sdk`` in a process of its own, with nothing but what ``cib-flows
local env`` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import LocalGlobus, run_client

PREAMBLE = """
import json, os
from globus_compute_sdk import Client, Executor
from globus_compute_sdk.serialize import AllCodeStrategies, ComputeSerializer, JSONData

endpoint = os.environ["CIB_FLOWS_BUILD_ENDPOINT"]
serializer = ComputeSerializer(strategy_code=AllCodeStrategies(), strategy_data=JSONData())

def executor(**config):
    return Executor(
        endpoint, serializer=serializer, result_serializers=[JSONData()],
        user_endpoint_config=config or None, api_burst_limit=8, api_burst_window_s=1,
    )

def report(document):
    print(json.dumps(document))
"""


@pytest.fixture(autouse=True)
def _needs_port_5000(local_globus: LocalGlobus) -> None:
    record = local_globus.home.running()
    assert record is not None
    if record.compute_port is None:
        pytest.skip("port 5000, the only one this SDK knows, is taken on this machine")


def run(globus: LocalGlobus, program: str, tmp_path: Path) -> Any:
    return json.loads(run_client(globus.environment, PREAMBLE + program, tmp_path))


def test_executor_on_a_process_pool(local_globus: LocalGlobus, tmp_path: Path) -> None:
    program = """
source = "def add(a, b):\\n    return a + b\\n"
boom = "def boom():\\n    raise ValueError('this is why')\\n"
with executor(profile="control") as pool:
    add = pool.register_source_code(source, "add")
    futures = [pool.submit_to_registered_function(add, args=(1, n)) for n in range(20)]
    sums = [future.result(60) for future in futures]
    failing = pool.submit_to_registered_function(pool.register_source_code(boom, "boom"))
    report([sums, type(failing.exception(60)).__name__, str(failing.exception())])
"""
    sums, error, text = run(local_globus, program, tmp_path)
    assert sums == [1 + n for n in range(20)]
    assert error == "TaskExecutionFailed"
    assert "ValueError: this is why" in text


def test_executor_hears_of_a_refused_configuration(
    local_globus: LocalGlobus, tmp_path: Path
) -> None:
    program = """
def one():
    return 1
with executor(container_uri="/etc/a.sif; id") as pool:
    problem = pool.submit(one).exception(60)
report(str(problem))
"""
    text = run(local_globus, program, tmp_path)
    assert "container_uri" in text
    assert "SEMANTICALLY_INVALID" in text


def test_client_runs_a_batch_and_asks_for_results(
    local_globus: LocalGlobus, tmp_path: Path
) -> None:
    program = """
import time
client = Client(data_serialization_strategy=JSONData())
name = client.register_source_code("def triple(n):\\n    return 3 * n\\n", "triple")
batch = client.create_batch(
    user_endpoint_config={"profile": "control"},
    result_serializers=["globus_compute_sdk.serialize.JSONData"],
)
for n in range(3):
    batch.add(name, args=(n,))
tasks = client.batch_run(endpoint, batch)["tasks"][name]
while any(found["pending"] for found in client.get_batch_result(tasks).values()):
    time.sleep(0.05)
found = client.get_batch_result(tasks)
report({
    "results": [found[task]["result"] for task in tasks],
    "function": client.get_function(name)["function_name"],
    "status": client.get_endpoint_status(endpoint)["status"],
    "endpoints": [entry["uuid"] for entry in client.get_endpoints()].count(endpoint),
    "metadata": client.get_endpoint_metadata(endpoint)["name"],
    "restricted": client.get_allowed_functions(endpoint)["restricted"],
    "deleted": client.delete_function(name).http_status,
})
"""
    assert run(local_globus, program, tmp_path) == {
        "results": [0, 3, 6],
        "function": "triple",
        "status": "online",
        "endpoints": 1,
        "metadata": "local",
        "restricted": False,
        "deleted": 200,
    }


def test_two_images_from_one_executor(local_globus: LocalGlobus, tmp_path: Path) -> None:
    images = Path(local_globus.home.site()["root"]) / "images" / "x"
    images.mkdir(parents=True, exist_ok=True)
    uris = [str(images / f"{letter}.sif") for letter in "ab"]
    for uri in uris:
        Path(uri).touch()
    program = f"""
def where():
    import os
    return [os.environ.get("SHIM_IMAGE"), os.getcwd(), os.environ.get("APPTAINER_BIND")]

found = []
with executor() as pool:
    futures = []
    for uri in {uris!r}:
        pool.user_endpoint_config = {{"container_uri": uri}}
        futures.append(pool.submit(where))
    report([future.result(120) for future in futures])
"""
    found = run(local_globus, program, tmp_path)
    assert [image for image, _, _ in found] == uris
    calls = [
        json.loads(line)
        for line in (local_globus.home.path.parent / "calls").read_text().splitlines()
    ]
    assert [call for call in calls if call[0] == "exec"] == calls, (
        "never 'run': any entrypoint works"
    )
    for (image, folder, bind), call in zip(
        found, sorted(calls, key=lambda c: _image(c)), strict=True
    ):
        assert _image(call) == image
        bound = call[call.index("--bind") + 1]
        assert folder.startswith(bound + "/"), "the run folder is visible inside"
        assert bind is None
        assert call[call.index(image) + 1] == "globus-compute-endpoint"


def _image(call: list[str]) -> str:
    return next(word for word in call if word.endswith(".sif"))
