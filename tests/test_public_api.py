"""What others may rely on: names, errors with their exit codes, types, and a cheap import."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import cib_flows
from cib_flows import errors

PUBLIC = {
    "BuildRun",
    "Catalogue",
    "CibFlowsError",
    "Container",
    "ContainerBuilder",
    "ContainerSpec",
    "NotFoundError",
    "RunFailedError",
    "ServiceError",
    "SpecError",
    "__version__",
    "build_and_register_container",
    "connect",
}
# error -> (parent, exit code)
TREE = {
    "AlreadyExistsError": ("CatalogueError", 1),
    "CatalogueError": ("CibFlowsError", 1),
    "CibFlowsError": ("Exception", 1),
    "IllegalNameError": ("UsageError", 2),
    "InUseError": ("CatalogueError", 1),
    "NotDeployedError": ("UsageError", 2),
    "NotFoundError": ("CibFlowsError", 1),
    "RunFailedError": ("CibFlowsError", 1),
    "ServiceError": ("CibFlowsError", 1),
    "SourceNotFoundError": ("NotFoundError", 1),
    "SpecError": ("CibFlowsError", 2),
    "UsageError": ("CibFlowsError", 2),
}


def test_the_public_names() -> None:
    assert set(cib_flows.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(cib_flows, name) is not None
    assert set(dir(cib_flows)) >= PUBLIC
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        getattr(cib_flows, "Nothing")  # noqa: B009 - the name does not exist


def test_the_errors_and_their_exit_codes() -> None:
    assert set(errors.__all__) == set(TREE)
    for name, (parent, code) in TREE.items():
        error = getattr(errors, name)
        assert error.__base__.__name__ == parent
        assert error.exit_code == code
        made = error("One sentence.")
        assert (made.message, str(made), made.hint) == ("One sentence.", "One sentence.", None)


def test_every_public_thing_says_what_it_is() -> None:
    for name in PUBLIC - {"__version__"}:
        assert inspect.getdoc(getattr(cib_flows, name)), name
    assert all(inspect.getdoc(getattr(errors, name)) for name in TREE)


def test_the_one_call_takes_the_older_tools_arguments_in_their_order() -> None:
    assert list(inspect.signature(cib_flows.build_and_register_container).parameters) == [
        "gcc_client",
        "endpoint_id",
        "image_file_name",
        "base_image_type",
        "base_image",
        "payload_url",
        "pip_packages",
        "conda_packages",
        "apt_packages",
    ]


def test_importing_costs_nothing_that_is_not_used() -> None:
    program = (
        "import sys, cib_flows, cib_flows.errors; cib_flows.ContainerSpec; "
        "heavy = {'globus_sdk', 'globus_compute_sdk', 'parsl', 'requests', 'jsonschema', 'yaml', 'starlette'}; "
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(cib_flows.__file__).parents[1],
    )
    assert (done.stderr, done.stdout) == ("", "[]\n")


def test_the_package_is_typed() -> None:
    assert (Path(cib_flows.__file__).parent / "py.typed").exists()
