"""A home of these tests' own, and the programs that talk to it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cib_flows.local import control
from cib_flows.local.home import Home

from .environments import environment_with

GLOBUS_CLI = "globus-cli==3.43.0"


@dataclass(frozen=True)
class Answer:
    """What a program said and how it ended."""

    code: int
    text: str
    errors: str

    @property
    def document(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Program:
    """A program of a client's own environment, which knows nothing but what ``local env`` prints."""

    path: Path
    home: Home
    folder: Path
    # What it was asked and answered with 0.
    made: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, *words: str, stdin: str = "", fails: bool = False) -> Answer:
        """Run it; its exit code must be 0, or another with ``fails``."""
        done = subprocess.run(
            [str(self.path), *words],
            env={
                "PATH": os.environ["PATH"],
                "LANG": "C.UTF-8",
                "HOME": str(self.folder),
                **self.home.environment(),
            },
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        answer = Answer(done.returncode, done.stdout, done.stderr)
        assert (answer.code != 0) is fails, (words, answer)
        if not fails:
            self.made.append(words)
        return answer

    def json(self, *words: str) -> Any:
        """What it answers as JSON."""
        return self(*words, "--format", "json").document


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    found = Home(tmp_path_factory.mktemp("clients") / "home")
    control.start(found, compute_port=False)
    yield found
    control.stop(found)


@pytest.fixture(scope="session")
def globus(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The Globus command line, as its users install it."""
    folder = environment_with(GLOBUS_CLI)
    return Program(folder / "bin" / "globus", home, tmp_path_factory.mktemp("person"))
