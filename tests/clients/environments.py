"""Virtual environments for clients that must not share ours, each made once and kept."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["environment_with"]

CACHE = "CIB_TEST_CACHE"


def cache_folder() -> Path:
    """Where the environments are kept between runs of the tests."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get(CACHE) or Path(base).expanduser() / "cib-flows-tests")


def environment_with(*requirements: str) -> Path:
    """The folder of an environment that holds ``requirements``; skips the test where they cannot be
    installed."""
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    name = "-".join([*(text.replace("==", "-") for text in requirements), version])
    folder = cache_folder() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        whole = folder / "whole"
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, list(requirements))
            whole.touch()
    return folder


def _make(folder: Path, requirements: list[str]) -> None:
    uv = shutil.which("uv")
    python = str(folder / "bin" / "python")
    if uv is not None:
        commands = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", python, *requirements],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [python, "-m", "pip", "install", "--quiet", *requirements],
        ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
            pytest.skip(f"{', '.join(requirements)} cannot be installed here: {last}")
