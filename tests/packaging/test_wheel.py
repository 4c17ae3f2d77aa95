"""One package, three ways to have it: a wheel, an editable install, and the checkout; they must say the same."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]
# What a user's program sees, as digests.
LOOK = """
import hashlib, json, sys
from importlib.resources import files
import cib_flows
from cib_flows.bundle import bundle_function, function_names
from cib_flows.spec import ContainerSpec, input_schema

def digest(package, name):
    return hashlib.sha256(files(package).joinpath(name).read_bytes()).hexdigest()

json.dump({
    "where": cib_flows.__file__,
    "version": cib_flows.__version__,
    "typed": files("cib_flows").joinpath("py.typed").is_file(),
    "bundles": {name: bundle_function(name).sha256 for name in function_names()},
    "definition": digest("cib_flows.flows", "build_container/definition.json"),
    "schema": digest("cib_flows.flows", "build_container/input_schema.json"),
    "template": digest("cib_flows.endpoints.local", "user_config_template.yaml.j2"),
    "spec": ContainerSpec.from_text("name: demo\\nbase: {image: x}\\n").digest,
    "title": input_schema()["title"],
}, sys.stdout)
"""


def run(*words: str | Path, **options: Any) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def build(kind: str, folder: Path) -> Path:
    # without network where the backend is installed, as a release would be built where it is not
    isolation = ["--no-isolation"] if has("hatchling") else []
    run(sys.executable, "-m", "build", f"--{kind}", *isolation, "-o", folder, ROOT)
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


def installer(python: Path) -> list[str]:
    if has("uv"):
        return [sys.executable, "-m", "uv", "pip", "install", "--python", str(python)]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", str(python)]
    if has("pip"):
        return [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "install",
            "--force-reinstall",
        ]
    pytest.skip("neither uv nor pip can install here")


def environment(folder: Path, *install: str | Path) -> Path:
    """A new virtual environment with this package installed; its dependencies are those of this Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    # after the environment's own packages, and without the links of an editable install
    (site,) = (folder / "lib").glob("python3.*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    isolation = ["--no-build-isolation"] if has("hatchling") and has("editables") else []
    run(*installer(python), "-q", "--no-deps", *isolation, *install)
    return python


def look(python: Path | str, cwd: Path, **extra: str) -> dict[str, Any]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CIB_FLOWS_"))}
    found: dict[str, Any] = json.loads(run(python, "-c", LOOK, cwd=cwd, env={**plain, **extra}))
    return found


def test_the_three_ways_agree(wheel: Path, tmp_path: Path) -> None:
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    checkout = look(sys.executable, cwd, PYTHONPATH=str(ROOT))
    installed = look(environment(tmp_path / "wheel", wheel), cwd)
    editable = look(environment(tmp_path / "editable", "-e", ROOT), cwd)
    places = [Path(found.pop("where")) for found in (checkout, installed, editable)]
    assert places[0] == places[2] == ROOT / "cib_flows" / "__init__.py"
    assert places[1].is_relative_to(tmp_path / "wheel")
    assert checkout == installed == editable
    assert checkout["typed"] is True
    assert len(checkout["bundles"]) >= 9


def test_the_wheel_holds_the_rooms_under_one_roof(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        entries = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"cib_flows", metadata.split("/")[0]}
    for name in (
        "cib_flows/py.typed",
        "cib_flows/functions/__init__.py",
        "cib_flows/functions/render_recipe.py",
        "cib_flows/functions/_shared/recipe.py",
        "cib_flows/flows/__init__.py",
        "cib_flows/flows/build_container/definition.json",
        "cib_flows/flows/build_container/input_schema.json",
        "cib_flows/flows/build_container/flow.json",
        "cib_flows/endpoints/local/user_config_template.yaml.j2",
        "cib_flows/endpoints/local/user_config_schema.json",
        "cib_flows/endpoints/local/config.yaml",
    ):
        assert names.count(name) == 1, name
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".orig"))]
    assert "cib-flows = cib_flows.cli:main" in entries
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: >=3.10" in text
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_a_wheel_made_from_the_source_archive_is_the_same(wheel: Path, tmp_path: Path) -> None:
    """Who has only the source archive has the links replaced by the rooms they point to."""
    archive = build("sdist", tmp_path / "sdist")
    with tarfile.open(archive) as source:
        source.extractall(tmp_path / "source")
    (tree,) = (tmp_path / "source").iterdir()
    isolation = ["--no-isolation"] if has("hatchling") else []
    run(sys.executable, "-m", "build", "--wheel", *isolation, "-o", tmp_path / "again", tree)
    (again,) = (tmp_path / "again").iterdir()

    def contents(path: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(path) as opened:
            return {n: opened.read(n) for n in opened.namelist() if not n.endswith("/RECORD")}

    assert contents(again) == contents(wheel)


def test_the_command_is_installed(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "environment", wheel)
    said = run(python.parent / "cib-flows", "--version", cwd=tmp_path)
    assert said.strip()
