"""A build that goes on from a kept environment gives the image that a build from nothing would."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import PLAIN, LocalGlobus


@pytest.fixture(scope="module")
def fresh(start_globus: Callable[..., LocalGlobus]) -> LocalGlobus:
    return start_globus()


def _stage_used(globus: LocalGlobus, container: dict[str, Any]) -> str:
    build = json.loads((globus.root / "runs" / container["run_id"] / "build.json").read_text())
    return str(build["stage"])


def _installed(globus: LocalGlobus, container: dict[str, Any]) -> list[str]:
    program = (
        "import importlib.metadata as m, os, sys\n"
        "print(sorted(d.name + '==' + d.version for d in m.distributions()), os.environ.get('COLOUR'))"
    )
    return globus.inside(container, "python3", "-c", program).split("\n")


def test_one_more_package_and_back_again(fresh: LocalGlobus) -> None:
    spec = {"name": "growing", **PLAIN, "pip": ["six"]}
    small = fresh.built(spec)
    assert _stage_used(fresh, small) == "none"
    larger = fresh.built({**spec, "pip": ["six", "toolz"]})
    assert _stage_used(fresh, larger) == "part"
    from_nothing = fresh.built({**spec, "pip": ["six", "toolz"]}, "--force")
    assert _stage_used(fresh, from_nothing) == "none"
    assert _installed(fresh, larger) == _installed(fresh, from_nothing)
    # what only the other spec asked for is not in an image made afterwards
    other = fresh.built({**spec, "pip": ["toolz"]})
    assert _stage_used(fresh, other) == "none"
    assert "six" not in _installed(fresh, other)[0]


def test_a_little_more_is_built_in_one_go_and_kept_when_it_is_wanted_again(
    fresh: LocalGlobus,
) -> None:
    spec = {"name": "more", **PLAIN, "pip": ["attrs"], "commands": ["touch /first"]}
    assert _stage_used(fresh, fresh.built(spec)) == "none"
    used = []
    for word in ("first", "second", "third"):
        more = fresh.built({**spec, "pip": ["attrs", "toolz"], "commands": [f"touch /{word}"]})
        used.append(_stage_used(fresh, more))
        assert "toolz" in _installed(fresh, more)[0]
    assert used == ["part", "part", "whole"]
    assert "first" not in fresh.inside(more, "ls", "/")


def test_commands_and_variables_of_one_spec_never_reach_another(fresh: LocalGlobus) -> None:
    spec = {"name": "apart", **PLAIN, "pip": ["six"]}
    first = fresh.built(
        {
            **spec,
            "environment": {"COLOUR": "red"},
            "commands": ["touch /only-here", "echo $COLOUR > /colour"],
            "mounts": ["/only-mounted"],
        }
    )
    assert _stage_used(fresh, first) == "whole", "the environment was kept by the test before"
    assert fresh.inside(first, "cat", "/colour") == "red\n"
    second = fresh.built({**spec, "commands": ["echo =$COLOUR= > /colour"]})
    assert _stage_used(fresh, second) == "whole"
    assert fresh.inside(second, "cat", "/colour") == "==\n"
    shown = fresh.inside(second, "ls", "/")
    assert "only-here" not in shown
    assert "only-mounted" not in shown
