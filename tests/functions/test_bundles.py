"""Every function once as Globus Compute gets it: one text, in a bare Python, called with real inputs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.bundle import bundle_function, function_names
from tests.functions.conftest import Apptainer, Run, Server, Site

ENDPOINT = "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b01"
# As the Compute worker runs a source text: an empty namespace, no module, no file, no installed package.
WORKER = """
import json, sys
namespace = {}
exec(open(sys.argv[1]).read(), namespace)
print(json.dumps(namespace[sys.argv[2]](**json.load(sys.stdin))))
"""


@pytest.fixture
def call(tmp_path: Path, site: Site) -> Callable[..., dict[str, Any]]:
    def called(name: str, **arguments: Any) -> dict[str, Any]:
        text = tmp_path / f"{name}.txt"
        text.write_text(bundle_function(name).source)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", WORKER, str(text), name],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.stderr == ""
        result: dict[str, Any] = json.loads(done.stdout)
        assert result["step"] == name
        return result

    return called


Call = Callable[..., dict[str, Any]]


def test_a_whole_run_step_by_step(
    call: Call, site: Site, registry: Server, web: Server, apptainer: Apptainer, run_id: str
) -> None:
    web.answer = lambda *_: (200, {}, b"payload")
    spec = {
        "name": "demo",
        "base": {"image": "debian:12"},
        "worker": "none",
        "payload": {"url": f"{web.url}/file.txt"},
        "verify": {"commands": ["echo fine"]},
    }
    assert call("watch_build", run_id=run_id)["state"] == "waiting"
    rendered = call("render_recipe", spec=spec, run_id=run_id)
    assert rendered["payload_kind"] == "https"
    recipe = rendered["recipe_sha256"]
    fetched = call("fetch_payload", run_id=run_id, recipe_sha256=recipe)
    assert fetched["payload_files"] == 1
    built = call("build_image", run_id=run_id, recipe_sha256=recipe)
    assert built["sif_bytes"] == 7
    proved = call("verify_image", run_id=run_id, sif_sha256=built["sif_sha256"])
    registered = call(
        "register_container",
        run_id=run_id,
        endpoint_id=ENDPOINT,
        sif_sha256=proved["sif_sha256"],
        verification_sha256=proved["verification_sha256"],
        functions={"build_image": ENDPOINT, "report_failure": ENDPOINT},
    )
    assert registered["executor"]["endpoint_id"] == ENDPOINT
    provenance = json.loads(Path(registered["path"]).with_suffix(".provenance.json").read_text())
    materials = provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    said = {m["name"]: m for m in materials if m["name"].startswith("function:")}
    steps = ("render_recipe", "fetch_payload", "build_image", "verify_image", "register_container")
    assert {name: m["digest"] for name, m in said.items()} == {
        f"function:{step}": {"sha256": bundle_function(step).sha256} for step in steps
    }
    assert {name: m["uri"] for name, m in said.items() if "uri" in m} == {
        "function:build_image": f"urn:globus:compute:function:{ENDPOINT}"
    }
    assert call("watch_build", run_id=run_id)["state"] == "finished"
    found = call("list_containers", reference="demo")
    assert found["container"]["container_id"] == registered["container_id"]
    assert call("abort_build", run_id=run_id)["aborted"] is False


def test_a_refused_spec(call: Call, run_id: str) -> None:
    result = call("render_recipe", spec={"name": "Demo"}, run_id=run_id)
    assert result["ok"] is False
    assert result["error"]["message"].startswith("'name' must be lower-case letters")


def test_an_empty_catalogue(call: Call) -> None:
    assert call("list_containers")["containers"] == []


def test_a_failure_and_an_abort(call: Call, start: Callable[..., Run]) -> None:
    run = start()
    assert call("abort_build", run_id=run.id)["aborted"] is True
    result = call(
        "report_failure", run_id=run.id, caught="ActionTimeout", transfer=None, outputs=[]
    )
    assert result["failed_step"] == "render_recipe"


def test_a_report_of_a_run_without_a_folder(call: Call, run_id: str) -> None:
    error = {"code": "spec_invalid", "message": "'name' is missing.", "hint": ""}
    outputs = [{"step": "render_recipe", "output": {"ok": False, "error": error}}]
    result = call("report_failure", run_id=run_id, caught=None, transfer=None, outputs=outputs)
    assert result["sentence"] == "'name' is missing."


@pytest.mark.parametrize("name", function_names())
def test_a_bundle_does_nothing_when_it_is_loaded(name: str, tmp_path: Path) -> None:
    """No file, no process, no connection: a worker loads a function before it knows what for."""
    text = tmp_path / "bundle.txt"
    text.write_text(bundle_function(name).source)
    program = (
        "import sys\n"
        "source = compile(open(sys.argv[1]).read(), 'bundle', 'exec')\n"
        "def hook(event, arguments):\n"
        "    if event.startswith(('subprocess', 'socket.', 'os.system', 'os.mkdir', 'os.remove', 'urllib')) or (\n"
        "        event == 'open' and arguments[1] and set('wax+') & set(str(arguments[1]))):\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.dont_write_bytecode = True\n"
        "sys.addaudithook(hook)\n"
        "exec(source, {})\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(text)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", function_names())
def test_a_bundle_is_within_what_compute_takes(name: str) -> None:
    assert len(bundle_function(name).source) < 400_000  # 10 MB is what a submission may be
