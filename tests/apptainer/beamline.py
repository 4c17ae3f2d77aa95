"""The example in ``examples/beamline`` as its README has one run it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .conftest import REPOSITORY, LocalGlobus

__all__ = ["RINGS", "Beamline"]

EXAMPLE = REPOSITORY / "examples" / "beamline"
RINGS = [31.0, 62.5, 94.2]


@dataclass
class Beamline:
    """Collections of an instrument, of the computing site's scratch, and for results."""

    globus: LocalGlobus
    folder: Path

    def __post_init__(self) -> None:
        self.collections = {}
        for name in ("instrument", "scratch", "results"):
            (self.folder / name).mkdir(parents=True)
            answer = self.globus.cli(
                "local", "collection", "add", name, str(self.folder / name), "--json"
            )
            assert answer.code == 0, answer.errors
            self.collections[name] = str(answer.document["id"])
        self.frames("/scan1", 6)

    def frames(self, path: str, number: int) -> None:
        command = [sys.executable, str(EXAMPLE / "simulate.py")]
        words = [str(self.folder / "instrument" / path[1:]), "--frames", str(number)]
        subprocess.run([*command, *words], check=True, capture_output=True)

    def run(self, *more: str, scan: str = "/scan1/") -> subprocess.CompletedProcess[str]:
        there = self.collections
        return subprocess.run(
            [
                *(sys.executable, str(EXAMPLE / "run.py"), "--home", str(self.globus.home)),
                *("--frames", f"{there['instrument']}:{scan}"),
                *("--scratch", f"{there['scratch']}:/"),
                *("--scratch-folder", str(self.folder / "scratch")),
                *("--results", f"{there['results']}:/"),
                "--json",
                *more,
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def ran(self, *more: str, scan: str = "/scan1/") -> dict[str, Any]:
        """What came out of a run, which must succeed; the results must be what was measured."""
        done = self.run(*more, scan=scan)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        results = self.folder / "results" / found["results"].strip("/")
        rings = json.loads((results / "rings.json").read_text())["rings"]
        assert len(rings) == len(RINGS), rings
        for ring, radius in zip(rings, RINGS, strict=True):
            assert abs(ring["radius_px"] - radius) < 0.1
        assert (results / "profile.csv").read_text().startswith("radius_px,mean_counts")
        assert (results / "mean.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert list((self.folder / "scratch").iterdir()) == [], "scratch is cleared"
        found["told"] = done.stderr
        return found
