"""What runs from an image keeps it: gc and a removal leave it alone until the job has ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.holds import holds, storage_time

from .conftest import LocalGlobus

GC = """
import json
from cib_flows.functions.collect_garbage import collect_garbage
print(json.dumps(collect_garbage(False, {"max_age_s": 0, "keep_last": 0, "min_age_s": 0})))
"""
# A function in the image, through the endpoint's own template and engine; it waits for a file.
CLIENT = """
import json, sys
from cib_flows import Container
from cib_flows.tasks import call_function
container = Container.get("leased")
source = '''
def wait(path):
    import os, time
    open(path + ".up", "w").close()
    while not os.path.exists(path):
        time.sleep(0.05)
    return {"image": os.environ.get("APPTAINER_CONTAINER")}
'''
globus, how = container.globus, container.executor_arguments()
function = globus.compute.register_function(
    {"function_name": "wait", "function_code": source, "serialized": False, "meta": {}}
)["function_uuid"]
answer = call_function(
    globus, "wait", function, how["endpoint_id"], how["user_endpoint_config"], {"path": sys.argv[1]}, 300
)
print(answer["image"])
"""


def wait_for(answer: Callable[[], Any]) -> Any:
    end = time.monotonic() + 120
    while not (found := answer()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def held(globus: LocalGlobus, made: dict[str, Any]) -> list[tuple[str, str]]:
    found = holds(Catalogue(str(globus.root)), storage_time(str(globus.root)))
    return found.get(f"{made['name']}@{made['sha256']}", [])


def collected(globus: LocalGlobus) -> int:
    """How many images a gc removes that keeps nothing but what is held."""
    done = subprocess.run(
        [sys.executable, "-c", GC],
        env={**os.environ, "CIB_FLOWS_SITE": str(globus.home / "site.json")},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(json.loads(done.stdout)["images"]["count"])


def test_a_worker_in_an_image_holds_it(
    start_globus: Callable[..., LocalGlobus], tmp_path: Path
) -> None:
    globus = start_globus()
    made = globus.built({"name": "leased", "base": {"image": "python:3.11-slim"}})
    # where both the image and this machine see it: Apptainer binds the home
    gate = Path.home() / f".cib-flows-gate-{os.getpid()}"
    job = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(gate)],
        cwd=tmp_path,
        env={**os.environ, "CIB_FLOWS_HOME": str(globus.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(Path(f"{gate}.up").exists)
        globus.cli("containers", "untag", "leased:latest")
        assert [kind for kind, _ in held(globus, made)] == ["lease"]
        assert collected(globus) == 0
        answer = globus.cli("containers", "remove", made["container_id"], "--force", "--json")
        assert answer.document["error"]["code"] == "in_use"
        assert "workers on" in answer.document["error"]["message"]
        gate.touch()
        output, _ = job.communicate(timeout=120)
        assert Path(output.strip()).name == Path(made["path"]).name
        assert Path(made["path"]).exists()
    finally:
        job.kill()
        for left in (gate, Path(f"{gate}.up")):
            left.unlink(missing_ok=True)
        globus.cli("local", "stop")
    # the workers ended with their endpoint
    wait_for(lambda: not held(globus, made))
    assert collected(globus) == 1
