"""The unmodified ``Executor``: which image runs what is said for each submission."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import LocalGlobus

CLIENT = """
import json
from cib_flows import Container

def where():
    import os
    return [os.environ.get("FLAVOUR"), os.path.basename(os.environ["APPTAINER_CONTAINER"])]

first, second = (Container.get(name) for name in ("flavour-one", "flavour-two"))
with first.executor() as executor:
    futures = []
    for container in (first, second, first, second):
        executor.user_endpoint_config = container.user_endpoint_config
        futures.append(executor.submit(where))
    print(json.dumps([future.result(300) for future in futures]))
"""


def flavoured(globus: LocalGlobus, name: str) -> dict[str, Any]:
    spec = {"name": f"flavour-{name}", "base": {"image": "python:3.11-slim"}}
    return globus.built({**spec, "environment": {"FLAVOUR": name}})


@pytest.mark.compute_port
def test_one_executor_uses_two_images(globus: LocalGlobus, tmp_path: Path) -> None:
    if not globus.has_compute_port:
        pytest.skip("port 5000, the only one that the Compute SDK knows, is taken on this machine")
    names = [Path(flavoured(globus, name)["path"]).name for name in ("one", "two")]
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        cwd=tmp_path,
        env={**os.environ, "CIB_FLOWS_HOME": str(globus.home)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [["one", names[0]], ["two", names[1]]]
    assert json.loads(done.stdout.splitlines()[-1]) == expected * 2
