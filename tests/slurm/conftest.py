"""A local Globus whose endpoint is the one that administrators of Slurm clusters install."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.apptainer.conftest import LocalGlobus

REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slurm)


def slurm(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout


def until(what: Callable[[], Any], seconds: float) -> Any:
    """The first true answer of ``what``: for what a scheduler does, where nothing can be awaited."""
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found or time.monotonic() > end:
            return found
        time.sleep(0.3)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """``connect`` points the clients of this process at a home; the next test may start another."""
    with mock.patch.dict(os.environ):
        yield


@dataclass
class Cluster:
    """A home with the Slurm endpoint; ``globus`` speaks to it as a user would."""

    globus: LocalGlobus

    def jobs(self, label: str = "") -> list[str]:
        """Ids of this home's jobs that wait or run; ``label`` is the engine's (build or run)."""
        listed = slurm("squeue", "-h", "-o", "%i %j %Z", "-u", os.environ["USER"])
        return [
            line.split()[0]
            for line in listed.splitlines()
            if str(self.globus.home) in line and label in line.split()[1]
        ]

    def state(self, job: str) -> str:
        return slurm("squeue", "-h", "-o", "%T", "-j", job).strip()

    def start(self, spec: dict[str, Any]) -> str:
        answer = self.globus.cli("start", self.globus.write_spec(spec), "--json")
        assert answer.code == 0, answer.errors
        return str(answer.document["run_id"])

    def build_log(self, run_id: str) -> str:
        path = self.globus.root / "runs" / run_id / "build.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def failure(self, run_id: str) -> dict[str, Any]:
        """Why the run failed, once it has."""
        answer = self.globus.cli("wait", run_id, "--json", timeout=400)
        assert answer.code == 1, answer.output
        found: dict[str, Any] = answer.document["failure"]
        return found


@pytest.fixture(scope="session")
def start_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Cluster]]:
    if os.geteuid() == 0:
        pytest.skip("images are built as an ordinary user; deploy_scripts/test.sh drops to one")
    if not shutil.which("apptainer"):
        pytest.skip("Apptainer is not installed; deploy_scripts/install_apptainer.sh does it")
    if not shutil.which("sbatch") or "up" not in slurm("sinfo", "-h", "-o", "%a"):
        pytest.skip("no Slurm answers; root starts one with deploy_scripts/slurm_node.sh start")
    started: list[LocalGlobus] = []

    def start(
        walltime: str = "00:20:00",
        limit_s: int = 600,
        edit: dict[str, str] | None = None,
        **site: Any,
    ) -> Cluster:
        # Slurm's nodes share the home folder; a temporary one of pytest may be a private mount
        folder = tmp_path_factory.mktemp("slurm")
        home = folder / "home"
        profile: dict[str, Any] = {}
        if os.environ.get("CIB_TEST_SITE"):
            profile = json.loads(Path(os.environ["CIB_TEST_SITE"]).read_text())
        profile |= {
            "root": str(folder / "containers"),
            "mksquashfs_args": "-comp zstd -Xcompression-level 1",
            "build_time_limit_s": limit_s,
            **site,
        }
        settings = {
            "environment": sys.prefix,
            "image-root": profile["root"],
            "site-profile": f"{home}/site.json",
            "interface": "lo",
            "partition": "cpu",
            "build-walltime": walltime,
            "build-limit-s": str(limit_s),
        }
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        subprocess.run(
            ["bash", str(REPOSITORY / "deploy_scripts" / "install_endpoint.sh"), "slurm",
             "--to", str(home / "endpoint"), *words],
            check=True,
            capture_output=True,
        )  # fmt: skip
        # Lost jobs are noticed after two minutes without a sign of life; tests wait for less.
        text = (home / "endpoint" / "user_config_template.yaml.j2").read_text()
        for old, new in {
            "  max_workers_per_node: 1\n": "  max_workers_per_node: 1\n  heartbeat_period: 3\n"
            "  heartbeat_threshold: 12\n",
            **(edit or {}),
        }.items():
            assert old in text, old
            text = text.replace(old, new)
        (home / "endpoint" / "user_config_template.yaml.j2").write_text(text)
        site_file = folder / "site.json"
        site_file.write_text(json.dumps(profile))
        globus = LocalGlobus(home, folder / "containers", folder, False, None)
        answer = globus.cli("local", "start", "--site", str(site_file), "--json", timeout=60)
        assert answer.code == 0, answer.errors
        started.append(globus)
        globus.has_compute_port = bool(answer.document.get("compute_url"))
        return Cluster(globus)

    yield start
    for globus in started:
        globus.cli("local", "stop", timeout=60)


@pytest.fixture(scope="session")
def cluster(start_cluster: Callable[..., Cluster]) -> Cluster:
    return start_cluster()
