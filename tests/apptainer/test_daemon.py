"""The unmodified endpoint daemon and real images: a function in an image that a submission names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import Stage, machine, namespace, stage

__all__ = ["machine", "namespace", "stage"]  # the fixtures of the daemon's own tier

pytestmark = pytest.mark.daemon

IN_THE_IMAGE = """
import json, sys
from globus_compute_sdk import Executor
from globus_compute_sdk.serialize import AllCodeStrategies, ComputeSerializer, JSONData
source = '''
def where():
    import os, pandas
    return [os.environ.get("APPTAINER_CONTAINER"), pandas.__version__]
'''
with Executor("ENDPOINT", serializer=ComputeSerializer(AllCodeStrategies(), JSONData()),
              result_serializers=[JSONData()], user_endpoint_config=CONFIG) as pool:
    name = pool.register_source_code(source, "where")
    print(json.dumps(pool.submit_to_registered_function(name).result(180)))
"""


def test_a_function_runs_in_a_real_image(stage: Stage, pandas_container: dict[str, Any]) -> None:
    stage.start_globus()
    image = stage.home / "containers" / "images" / "pandas" / Path(pandas_container["path"]).name
    image.parent.mkdir(parents=True)
    shutil.copyfile(pandas_container["path"], image)
    daemon = stage.start_daemon()
    config = json.dumps({"container_uri": str(image)})
    program = IN_THE_IMAGE.replace("ENDPOINT", daemon.endpoint_id).replace("CONFIG", config)
    where, version = stage.machine.python(program)
    assert where == str(image)
    record = json.loads(Path(pandas_container["path"]).with_suffix(".json").read_text())
    assert version == record["verification"]["packages"]["pandas"]


def test_the_whole_flow_builds_on_a_daemon(
    stage: Stage, pandas_container: dict[str, Any], tmp_path: Path
) -> None:
    """Every step of the flow is a task of the daemon's; the base is a file, since the namespace
    has no network."""
    site = json.loads(Path(os.environ.get("CIB_TEST_SITE", os.devnull)).read_text() or "{}")
    # In the namespace only one user id is mapped, so a build cannot have subordinate ones.
    site |= {"registry_mirrors": {}, "fakeroot": "ignore-subuid"}
    (tmp_path / "site.json").write_text(json.dumps(site))
    stage.start_globus("--site", str(tmp_path / "site.json"))
    base = stage.home / "containers" / "images" / "base" / Path(pandas_container["path"]).name
    base.parent.mkdir(parents=True)
    shutil.copyfile(pandas_container["path"], base)
    daemon = stage.start_daemon()
    spec = {
        "name": "derived",
        "base": {"bootstrap": "localimage", "image": str(base)},
        "worker": "none",
        "commands": ["echo made here > /made"],
        "build_endpoint": daemon.endpoint_id,
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    container = stage.machine.cib_flows("build", str(tmp_path / "spec.json"))
    assert Path(container["path"]).exists()
    shown = stage.machine.run("apptainer", "--silent", "exec", container["path"], "cat", "/made")
    assert shown == "made here\n"
