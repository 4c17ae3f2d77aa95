"""The daemon registers, runs what it is sent, and refuses what its administrator does not want."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from .conftest import Stage

pytestmark = pytest.mark.daemon

PREAMBLE = """
import json, os
from globus_compute_sdk import Client, Executor
from globus_compute_sdk.serialize import AllCodeStrategies, ComputeSerializer, JSONData, PureSourceTextInspect

ENDPOINT = "{endpoint}"
text = ComputeSerializer(strategy_code=AllCodeStrategies(), strategy_data=JSONData())

def executor(serializer=text, **config):
    return Executor(ENDPOINT, serializer=serializer, result_serializers=[JSONData()],
                    user_endpoint_config=config or None)

def report(document):
    print(json.dumps(document))
"""


def run(stage: Stage, program: str, endpoint: str) -> Any:
    return stage.machine.python(PREAMBLE.replace("{endpoint}", endpoint) + program)


RUNS_AND_REFUSES = """
source = "def add(a, b):\\n    return a + b\\n"
boom = "def boom():\\n    raise ValueError('this is why')\\n"
answers = {}
with executor(profile="control") as pool:
    add = pool.register_source_code(source, "add")
    futures = [pool.submit_to_registered_function(add, args=(1, n)) for n in range(10)]
    answers["sums"] = [future.result(90) for future in futures]
    failing = pool.submit_to_registered_function(pool.register_source_code(boom, "boom"))
    answers["failure"] = str(failing.exception(60))

def pickled():
    return 1

with executor(ComputeSerializer(), profile="control") as pool:
    answers["serializer"] = str(pool.submit(pickled).exception(60))
with executor(profile="control", container_uri="/etc/x.sif") as pool:
    answers["schema"] = str(pool.submit_to_registered_function(add, args=(1, 2)).exception(60))
with executor(worker_init="id") as pool:
    answers["unknown"] = str(pool.submit_to_registered_function(add, args=(1, 2)).exception(60))
report(answers)
"""


@pytest.mark.parametrize("broker", ["embedded", "rabbitmq"])
def test_it_runs_functions_and_refuses_what_its_files_refuse(
    stage: Stage, broker: str, request: pytest.FixtureRequest
) -> None:
    options = []
    if broker == "rabbitmq":
        options = ["--broker", request.getfixturevalue("rabbitmq")]
    stage.start_globus(*options)
    daemon = stage.start_daemon()
    answers = run(stage, RUNS_AND_REFUSES, daemon.endpoint_id)
    assert answers["sums"] == [1 + n for n in range(10)]
    assert "ValueError: this is why" in answers["failure"]
    assert "DeserializationError" in answers["serializer"] or "serializ" in answers["serializer"]
    assert "SEMANTICALLY_INVALID" in answers["schema"]
    assert "SEMANTICALLY_INVALID" in answers["unknown"]
    assert "worker_init" in answers["unknown"]


def test_only_allowed_functions_run(stage: Stage) -> None:
    stage.start_globus()
    stage.machine.environment |= stage.environment()
    register = """
from globus_compute_sdk import Client
import json
client = Client()
source = "def {name}():\\n    return '{name}'\\n"
print(json.dumps([client.register_source_code(source.replace("{name}", name), name) for name in ("good", "bad")]))
"""
    good, bad = stage.machine.python(register)

    def allow(folder: Path) -> None:
        with (folder / "config.yaml").open("a") as stream:
            stream.write(f"allowed_functions: [{good}]\n")

    daemon = stage.start_daemon(edit=allow)
    program = f"""
with executor(profile="control") as pool:
    fine = pool.submit_to_registered_function("{good}").result(90)
with executor(profile="control") as pool:
    refused = str(pool.submit_to_registered_function("{bad}").exception(60))
report([fine, refused])
"""
    fine, refused = run(stage, program, daemon.endpoint_id)
    assert fine == "good"
    assert "FUNCTION_NOT_PERMITTED" in refused


def test_an_allow_list_of_the_template_is_kept_by_the_user_endpoint(stage: Stage) -> None:
    stage.start_globus()

    def allow(folder: Path) -> None:
        template = folder / "user_config_template.yaml.j2"
        nobody = "00000000-0000-4000-8000-000000000000"
        template.write_text(
            template.read_text().replace(
                '{% include "allowed_functions.yaml" ignore missing %}',
                f"allowed_functions: [{nobody}]",
            )
        )

    daemon = stage.start_daemon(edit=allow)
    program = """
with executor(profile="control") as pool:
    name = pool.register_source_code("def one():\\n    return 1\\n", "one")
    report(str(pool.submit_to_registered_function(name).exception(90)))
"""
    assert "not permitted on endpoint" in run(stage, program, daemon.endpoint_id)


SHIM = """#!/bin/sh
# Runs what follows the image on the host, and lets it know which image was asked for.
while [ "$#" -gt 0 ]; do
    case "$1" in *.sif) image=$1; shift; break ;; esac
    shift
done
SHIM_IMAGE=$image exec "$@"
"""


def test_a_function_runs_in_the_image_that_its_submission_names(
    stage: Stage, tmp_path: Path
) -> None:
    shims = tmp_path / "bin"
    shims.mkdir()
    (shims / "apptainer").write_text(SHIM)
    (shims / "apptainer").chmod(0o755)
    stage.machine.environment["PATH"] = f"{shims}{os.pathsep}{stage.machine.environment['PATH']}"
    stage.start_globus()
    daemon = stage.start_daemon()
    images = [str(stage.home / "containers" / "images" / f"{name}.sif") for name in ("a", "b")]
    program = f"""
source = "def image():\\n    import os\\n    return os.environ.get('SHIM_IMAGE')\\n"
found = []
for image in {images!r}:
    with executor(container_uri=image) as pool:
        name = pool.register_source_code(source, "image")
        found.append(pool.submit_to_registered_function(name).result(120))
report(found)
"""
    assert run(stage, program, daemon.endpoint_id) == images


def test_the_flow_runs_its_functions_on_a_daemon(stage: Stage) -> None:
    """The deployed flow's first function, as the flow calls it: an action of the v3 provider."""
    stage.start_globus()
    daemon = stage.start_daemon()
    base = stage.home / "containers" / "images" / "base.sif"
    base.parent.mkdir(parents=True, exist_ok=True)
    base.write_bytes(b"only its path and digest matter here")
    function_id = stage.machine.python(REGISTER_RENDER_RECIPE)
    program = RUN_FLOW.replace("FUNCTION", function_id).replace("ENDPOINT", daemon.endpoint_id)
    program = program.replace("BASE", str(base))
    run_document = stage.machine.python(program)
    assert run_document["status"] == "SUCCEEDED", run_document
    assert run_document["result"]["ok"], run_document
    assert run_document["result"]["name"] == "demo"
    assert Path(run_document["result"]["recipe_path"]).read_text().startswith(("#", "Bootstrap"))


REGISTER_RENDER_RECIPE = """
import json
from globus_compute_sdk import Client
from cib_flows.bundle import bundle_function
print(json.dumps(Client().register_source_code(bundle_function("render_recipe").source, "render_recipe")))
"""

RUN_FLOW = """
import json, os, time, uuid, globus_sdk
from globus_sdk import ClientApp, GlobusAppConfig
app = ClientApp("t", client_id=os.environ["CIB_FLOWS_CLIENT_ID"],
                client_secret=os.environ["CIB_FLOWS_CLIENT_SECRET"],
                config=GlobusAppConfig(token_storage="memory"))
spec = {"name": "demo", "base": {"bootstrap": "localimage", "image": "BASE"}}
definition = {"StartAt": "Render", "States": {"Render": {
    "Type": "Action", "ActionUrl": "https://compute.actions.globus.org/v3", "WaitTime": 300,
    "Parameters": {
        "endpoint_id": "ENDPOINT", "user_endpoint_config": {"profile": "control"},
        "tasks": [{"function_id": "FUNCTION", "args": [], "kwargs": {"spec.$": "$.spec", "run_id.$": "$.run_id"}}],
    },
    "ResultPath": "$.rendered", "ExceptionOnActionFailure": True, "End": True}}}
flows = globus_sdk.FlowsClient(app=app)
flow = flows.create_flow("daemon", definition, {})
specific = globus_sdk.SpecificFlowClient(flow["id"], app=app)
run_id = specific.run_flow({"spec": spec, "run_id": str(uuid.uuid4())})["run_id"]
end = time.monotonic() + 120
while (run := flows.get_run(run_id))["status"] == "ACTIVE" and time.monotonic() < end:
    time.sleep(0.2)
output = run["details"].get("output") or {}
result = output.get("rendered", {}).get("details", {}).get("result", [{}])[0]
print(json.dumps({"status": run["status"], "details": run["details"], "result": result}))
"""


WAITS = """
source = '''
def waits(folder):
    import os, time
    with open(folder + "/began", "a") as stream:
        stream.write("x")
    while not os.path.exists(folder + "/go"):
        time.sleep(0.05)
    return "done"
'''
"""


def test_a_daemon_outlives_the_service(stage: Stage, tmp_path: Path) -> None:
    """The server is killed while a daemon's task is under way: the daemon connects again, and the
    task's result arrives; the task ran once."""
    stage.start_globus()
    daemon = stage.start_daemon()
    work = tmp_path / "work"
    work.mkdir()
    submit = f"""
client = Client(data_serialization_strategy=JSONData())
function = client.register_source_code(source, "waits")
batch = client.create_batch(
    user_endpoint_config={{"profile": "control"}},
    result_serializers=["globus_compute_sdk.serialize.JSONData"],
)
batch.add(function, args=[{str(work)!r}], kwargs={{}})
(task,) = client.batch_run(ENDPOINT, batch)["tasks"][function]
import time
end = time.monotonic() + 60
while not os.path.exists({str(work)!r} + "/began") and time.monotonic() < end:
    time.sleep(0.05)
time.sleep(1.0)  # the user endpoint tells within half a second that it took the task
report(task)
"""
    task_id = run(stage, WAITS + submit, daemon.endpoint_id)
    assert (work / "began").exists()
    status = stage.machine.cib_flows("local", "status")
    os.kill(status["pid"], signal.SIGKILL)
    stage.start_globus()
    (work / "go").touch()
    ask = f"""
import time
client = Client()
end = time.monotonic() + 120
while time.monotonic() < end:
    found = client.get_task({task_id!r})
    if not found["pending"]:
        break
    time.sleep(0.5)
report(found.get("status"))
"""
    assert run(stage, ask, daemon.endpoint_id) == "success"
    assert (work / "began").read_text() == "x"
