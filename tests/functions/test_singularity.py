"""SingularityCE gets only what it knows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cib_flows.functions._shared.singularity import engine_command, engine_environment
from cib_flows.functions.build_image import build_image
from tests.functions.conftest import Apptainer, Run, Site

CE = "singularity-ce version 4.5.1"
APPTAINER = "apptainer version 1.4.5"
BUILD = [
    "apptainer",
    "build",
    "--force",
    "--fakeroot",
    "--ignore-subuid",
    "--mksquashfs-args",
    "-comp zstd",
    "a",
    "b",
]


def test_apptainer_is_left_alone() -> None:
    environment = {"APPTAINER_TMPDIR": "/x"}
    assert engine_command(APPTAINER, BUILD) == BUILD
    assert engine_environment(APPTAINER, environment) == environment


def test_what_singularity_does_not_know_is_left_out() -> None:
    assert engine_command(CE, BUILD) == ["apptainer", "build", "--force", "--fakeroot", "a", "b"]
    environment = {"APPTAINER_TMPDIR": "/x", "APPTAINERENV_A": "1", "PATH": "/bin:/APPTAINER"}
    assert engine_environment(CE, environment) == {
        "SINGULARITY_TMPDIR": "/x",
        "SINGULARITYENV_A": "1",
        "PATH": "/bin:/APPTAINER",
    }


def test_an_ordinary_account_must_ask_to_be_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert engine_command(CE, ["s", "build", "a", "b"]) == ["s", "build", "--fakeroot", "a", "b"]
    assert engine_command(CE, ["s", "exec", "a", "b"]) == ["s", "exec", "a", "b"]


def test_an_account_without_ids_builds_by_proot_where_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "--fakeroot" in engine_command(CE, ["s", "build", "a", "b"])
    (tmp_path / "proot").write_text("#!/bin/sh\n")
    (tmp_path / "proot").chmod(0o755)
    assert engine_command(CE, ["s", "build", "a", "b"]) == ["s", "build", "a", "b"]


def test_a_build_with_singularity(
    start: Callable[..., Run], apptainer: Apptainer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cib_flows.functions._shared.engine.engine_version", lambda: CE)
    site.set(mksquashfs_args="-comp zstd", fakeroot="ignore-subuid")
    run = start()
    result = build_image(run.id, run.recipe_sha256)
    assert result["ok"] is True, result
    asked = apptainer.asked
    assert "--mksquashfs-args" not in asked["argv"]
    assert "--ignore-subuid" not in asked["argv"]
    assert "--fakeroot" in asked["argv"]
    assert "SINGULARITY_TMPDIR" in asked["environment"]
    assert not [name for name in asked["environment"] if name.startswith("APPTAINER")]
