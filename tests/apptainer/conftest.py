"""One embedded Globus for the whole tier, spoken to by the command line as a user would."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.homes import COMMAND, PLAIN, REPOSITORY, Answer, LocalGlobus, needs_apptainer, start_home

__all__ = ["COMMAND", "PLAIN", "REPOSITORY", "Answer", "LocalGlobus"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.apptainer)


@pytest.fixture(scope="session")
def start_globus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., LocalGlobus]]:
    """Start homes on request; all are stopped at the end."""
    needs_apptainer()
    started: list[LocalGlobus] = []

    def start(**site: Any) -> LocalGlobus:
        started.append(start_home(tmp_path_factory.mktemp("globus"), **site))
        return started[-1]

    yield start
    for globus in started:
        globus.cli("local", "stop", timeout=60)


@pytest.fixture(scope="session")
def globus(start_globus: Callable[..., LocalGlobus]) -> LocalGlobus:
    return start_globus()


@pytest.fixture(scope="session")
def pandas_container(globus: LocalGlobus) -> dict[str, Any]:
    """The README's example, built once through the whole flow."""
    return globus.built(str(REPOSITORY / "examples" / "pandas.yaml"))


@pytest.fixture
def profile(site: LocalGlobus) -> Iterator[Callable[..., None]]:
    """Change the site profile of the module's own home, ``site``, until the test ends."""
    path = site.home / "site.json"
    before = path.read_text()

    def change(**fields: Any) -> None:
        path.write_text(json.dumps({**json.loads(before), **fields}))

    yield change
    path.write_text(before)
