"""What importing the package's flow tools brings along, and what it leaves out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cib_flows

OURS = Path(cib_flows.__file__).parent / "flows" / "build_container" / "definition.json"


def test_the_checks_of_a_definition_bring_neither_drawings_nor_yaml() -> None:
    """The local Globus imports them at its start."""
    program = (
        "import sys, cib_flows.flow.definition as d\n"
        "assert d.definition_problems({})\n"
        "print(sorted({'yaml', 'jsonschema', 'cib_flows.flow.svg'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import cib_flows.flow as package

    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError):
        package.nothing  # noqa: B018


def test_lint_and_graph_need_nothing_of_the_local_globus() -> None:
    """Whoever installs the package without the extra ``local`` has neither of these."""
    program = (
        "import sys\n"
        "for name in ('simpleeval', 'starlette', 'uvicorn', 'cib_flows.local'):\n"
        "    sys.modules[name] = None\n"
        "from cib_flows.flow import draw, lint\n"
        f"assert lint({str(OURS)!r}).findings == [] and draw({str(OURS)!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
