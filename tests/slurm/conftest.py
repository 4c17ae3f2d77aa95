"""A local Globus whose endpoint is the one that administrators of Slurm clusters install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.homes import REPOSITORY, LocalGlobus, needs_apptainer, start_home


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
    needs_apptainer()
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
        settings = {
            "environment": sys.prefix,
            "image-root": str(folder / "containers"),
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
        started.append(start_home(folder, build_time_limit_s=limit_s, **site))
        return Cluster(started[-1])

    yield start
    for globus in started:
        globus.cli("local", "stop", timeout=60)


@pytest.fixture(scope="session")
def cluster(start_cluster: Callable[..., Cluster]) -> Cluster:
    return start_cluster()
