"""Homes of a local Globus as tests start them, and the command line that speaks to them as a user would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "from cib_flows.cli import main; main()"]
# A plain image, for tests that are not about Python: it builds several times faster.
PLAIN = {"base": {"image": "python:3.11-slim"}, "worker": "none"}


@dataclass
class Answer:
    """What one call of the command line said."""

    code: int
    output: str
    errors: str

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.output)
        assert isinstance(found, dict)
        return found


@dataclass
class LocalGlobus:
    """A running home and the folder that its containers live in."""

    home: Path
    root: Path
    folder: Path
    has_compute_port: bool
    tools: Path | None

    def cli(self, *arguments: str, timeout: float = 900) -> Answer:
        """``cib-flows ARGUMENTS --home HOME``."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env={**os.environ, "CIB_FLOWS_HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def write_spec(self, spec: dict[str, Any]) -> str:
        path = self.folder / f"{spec['name']}.json"
        path.write_text(json.dumps(spec))
        return str(path)

    def build(self, spec: dict[str, Any] | str, *options: str) -> Answer:
        path = spec if isinstance(spec, str) else self.write_spec(spec)
        return self.cli("build", path, "--json", *options)

    def built(self, spec: dict[str, Any] | str, *options: str) -> dict[str, Any]:
        """Build, which must succeed; returns the container."""
        answer = self.build(spec, *options)
        assert answer.code == 0, answer.errors + answer.output
        return answer.document

    def inside(self, container: dict[str, Any], *command: str) -> str:
        """What a command prints in the image, as a worker would start it: ``apptainer run``."""
        done = subprocess.run(
            [
                "apptainer",
                "--silent",
                "run",
                "--containall",
                "--cleanenv",
                container["path"],
                *command,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def leftovers(self) -> list[Path]:
        """Work areas of runs; none may be there once every run has ended."""
        found = [*(self.root / "work").glob("*"), *(self.home / "staging").glob("*")]
        for run in (self.root / "runs").glob("*"):
            for parent in ("/tmp", "/var/tmp", "/dev/shm"):
                found += Path(parent).glob(f"cib-{run.name[:8]}-*")
        return found


def needs_apptainer() -> None:
    """Skips where no images can be built."""
    if os.geteuid() == 0:
        pytest.skip("images are built as an ordinary user; deploy_scripts/test.sh drops to one")
    if not shutil.which("apptainer"):
        pytest.skip("Apptainer is not installed; deploy_scripts/install_apptainer.sh does it")


def start_home(folder: Path, **site: Any) -> LocalGlobus:
    """Start ``folder/home``, whose containers are in ``folder/containers``. ``site`` is laid over the
    site profile that this machine's tests use.
    """
    profile: dict[str, Any] = {}
    if os.environ.get("CIB_TEST_SITE"):
        profile = json.loads(Path(os.environ["CIB_TEST_SITE"]).read_text())
    profile |= {
        "root": str(folder / "containers"),
        "payload_hosts": ["127.0.0.1"],
        # the default compressor takes most of a small build's time and is not what is tested
        "mksquashfs_args": "-comp zstd -Xcompression-level 1",
        **site,
    }
    site_file = folder / "site.json"
    site_file.write_text(json.dumps(profile))
    tools = Path(profile["tools"]) if profile.get("tools") else None
    globus = LocalGlobus(folder / "home", folder / "containers", folder, False, tools)
    # of several processes of tests none takes the one port, so that none depends on being first
    options = ["--no-compute-port"] if "PYTEST_XDIST_WORKER" in os.environ else []
    words = ("local", "start", "--site", str(site_file), "--json", *options)
    answer = globus.cli(*words, timeout=60)
    assert answer.code == 0, answer.errors
    globus.has_compute_port = bool(answer.document.get("compute_url"))
    return globus
