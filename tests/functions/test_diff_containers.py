"""Two registered containers side by side: their records, their locks, and the files in real file systems."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared.sif import squash_partition
from cib_flows.functions._shared.tree_manifest import (
    differences,
    digest_files,
    entries_of,
    left_out,
)
from cib_flows.functions.diff_containers import diff_containers
from tests.functions.conftest import Apptainer, Run
from tests.functions.test_lock import PIP, register
from tests.functions.test_sif import sif
from tests.functions.test_verify_image import probe_answer

Built = Callable[..., tuple[Run, str]]


def compared(first: str, second: str, **options: Any) -> dict[str, Any]:
    found = diff_containers(first, second, **options)
    assert found["ok"], found
    return found


def test_packages_environment_base_and_recipe_are_compared(
    built: Built, apptainer: Apptainer
) -> None:
    one = probe_answer(packages={"numpy": "2.1.0"}, pip=[PIP[0]])
    two = probe_answer(packages={"numpy": "2.2.0"}, pip=[{**PIP[0], "version": "2.2.0"}, PIP[1]])
    apptainer.control(image="SIF one", answers=[one])
    register(*built(name="one", pip=["numpy"], environment={"A": "1", "B": "1"}))
    apptainer.control(image="SIF two!", answers=[two])
    register(*built(name="two", pip=["numpy"], environment={"A": "2", "C": "1"}))

    found = compared("one", "two")
    assert found["same_image"] is False
    assert found["base"] is None
    assert found["packages"]["pip"] == {
        "total": 2,
        "added": {"pip": "26.3"},
        "removed": {},
        "changed": {"numpy": ["2.1.0", "2.2.0"]},
    }
    assert found["packages"]["debian"]["total"] == 0
    assert found["environment"]["changed"] == {"A": ["1", "2"]}
    assert (found["environment"]["added"], found["environment"]["removed"]) == (
        {"C": "1"},
        {"B": "1"},
    )
    assert "+    export C=1" in found["recipe"]
    assert found["bytes"] == 1
    assert compared("one", "one")["same_image"] is True
    missing = diff_containers("one", "three")
    assert missing["error"]["code"] == "container_not_found"
    # these images hold no file system at all
    assert diff_containers("one", "two", content=True)["error"]["code"] == "image_unreadable"


@pytest.mark.parametrize(
    ("path", "takes_part"),
    [
        ("/etc/passwd", True),
        ("/opt/cib/venv/lib/python3.11/site-packages/six.py", True),
        ("/opt/cib/venv/lib/python3.11/__pycache__/six.cpython-311.pyc", False),
        ("/.singularity.d/labels.json", False),
        ("/.singularity.d/env/90-environment.sh", True),
        ("/var/log/dpkg.log", False),
        ("/var/lib/dpkg/status", True),
        ("/var/lib/dpkg/status-old", False),
    ],
)
def test_only_what_tells_when_a_build_ran_is_left_out(path: str, takes_part: bool) -> None:
    assert (left_out(path) is None) is takes_part


@pytest.fixture
def image(tmp_path: Path) -> Callable[[str, Callable[[Path], Any]], str]:
    """An image around a real squashfs of a folder that the test fills."""
    if not (shutil.which("mksquashfs") and shutil.which("unsquashfs")):
        pytest.skip("squashfs-tools are not installed")

    def made(name: str, change: Callable[[Path], Any]) -> str:
        tree = tmp_path / name
        (tree / "var/log").mkdir(parents=True)
        (tree / "file").write_text("content")
        (tree / "program").write_text("#!/bin/sh\n")
        (tree / "shut").write_text("secret")
        (tree / "shut").chmod(0o400)  # an ordinary user has to be able to pack it
        (tree / "link").symlink_to("file")
        change(tree)
        packed = tmp_path / f"{name}.squashfs"
        subprocess.run(
            ["mksquashfs", str(tree), str(packed), "-quiet", "-no-progress", "-all-root"],
            check=True,
            capture_output=True,
        )
        path = tmp_path / f"{name}.sif"
        path.write_bytes(sif(content=packed.read_bytes()))
        return str(path)

    return made


def found_between(first: str, second: str, scratch: Path) -> dict[str, str]:
    trees = []
    for path in (first, second):
        partition = squash_partition(path)
        assert partition is not None
        tree = entries_of(path, partition)
        digest_files(path, partition, [e for e in tree.values() if e.mode[0] == "-"], str(scratch))
        trees.append(tree)
    assert list(scratch.iterdir()) == []
    return {row["path"]: row["what"] for row in differences(trees[0], trees[1])}


def test_two_trees_with_the_same_files_do_not_differ(
    image: Callable[..., str], tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    first = image("first", lambda tree: (tree / "var/log/dpkg.log").write_text("one"))
    second = image("second", lambda tree: (tree / "var/log/dpkg.log").write_text("another day"))
    assert found_between(first, second, scratch) == {}


def test_every_way_to_differ_is_told(image: Callable[..., str], tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def change(tree: Path) -> None:
        (tree / "file").write_text("CONTENT")
        (tree / "program").chmod(0o755)
        (tree / "shut").chmod(0o600)
        (tree / "shut").write_text("longer secret")
        (tree / "link").unlink()
        (tree / "link").symlink_to("program")
        (tree / "new name").write_text("")

    first = image("first", lambda tree: (tree / "old").mkdir())
    assert found_between(first, image("second", change), scratch) == {
        "/file": "content",
        "/program": "mode -rw-r--r-- became -rwxr-xr-x",
        "/shut": "mode -r-------- became -rw-------, size 6 became 13",
        "/link": "target file became program",
        "/new name": "added",
        "/old": "removed",
    }
