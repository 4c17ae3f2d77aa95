"""A lock of a real image, and the same image again from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import PLAIN, LocalGlobus

SPEC: dict[str, Any] = {
    **PLAIN,
    "name": "locked",
    "apt": ["file"],
    "pip": ["six"],
    "commands": ["date > /var/log/built"],
}


@pytest.fixture(scope="module")
def lock(globus: LocalGlobus) -> dict[str, Any]:
    globus.built(SPEC)
    answer = globus.cli("containers", "lock", "locked")
    assert answer.code == 0, answer.errors
    found: dict[str, Any] = json.loads(answer.output)
    return found


def by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


def test_a_lock_names_versions_and_hashes(globus: LocalGlobus, lock: dict[str, Any]) -> None:
    assert lock["base"]["digest"].startswith("sha256:")
    six = by_name(lock["pip"])["six"]
    shown = globus.cli("containers", "show", "locked", "--json").document
    inside = globus.inside(
        shown["container"], "python3", "-c", "import six; print(six.__version__)"
    )
    assert six["version"] == inside.strip()
    assert six["hashes"]
    debian = by_name(lock["debian"])
    said = globus.inside(shown["container"], "dpkg-query", "-W", "-f", "${Version}", "file")
    assert debian["file"]["version"] == said
    assert len(debian["file"]["sha256"]) == 64


def test_the_same_image_again_is_content_identical(
    globus: LocalGlobus, lock: dict[str, Any]
) -> None:
    again = globus.cli("build", "--locked", "locked:latest", "--json")
    assert again.code == 0, again.errors
    assert (again.document["name"], again.document["tag"]) == ("locked", "latest-locked")
    assert again.document["cached"] is False
    compared = globus.cli(
        "containers", "diff", "locked:latest", "locked:latest-locked", "--content"
    )
    assert compared.code == 0, compared.errors
    assert "content-identical" in compared.output
    assert "pip:" not in compared.output


def test_an_older_version_is_installed_where_the_lock_says_so(
    globus: LocalGlobus, lock: dict[str, Any]
) -> None:
    older = json.loads(json.dumps(lock))
    six = by_name(older["pip"])["six"]
    six["version"] = "1.16.0"
    six["hashes"] = ["sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254"]
    answer = globus.cli("build", "--locked", written(globus, older), "--json")
    assert answer.code == 0, answer.errors
    compared = globus.cli("containers", "diff", "locked:latest", "locked:latest-locked").output
    assert f"six {by_name(lock['pip'])['six']['version']} -> 1.16.0" in compared

    six["hashes"] = ["sha256:" + "0" * 64]
    answer = globus.cli("build", "--locked", written(globus, older), "--json")
    assert answer.code == 1
    assert answer.document["failure"]["code"] == "lock_mismatch"
    assert "six==1.16.0" in answer.document["failure"]["sentence"]


def test_a_version_that_is_gone_is_named(globus: LocalGlobus, lock: dict[str, Any]) -> None:
    gone = json.loads(json.dumps(lock))
    by_name(gone["debian"])["file"]["version"] = "1:0.1-1"
    answer = globus.cli("build", "--locked", written(globus, gone), "--json")
    assert answer.code == 1
    failure = answer.document["failure"]
    assert failure["code"] == "lock_mismatch"
    assert "debian file:" in failure["sentence"]


def written(globus: LocalGlobus, lock: dict[str, Any]) -> str:
    path: Path = globus.folder / "lock.json"
    path.write_text(json.dumps(lock))
    return str(path)
