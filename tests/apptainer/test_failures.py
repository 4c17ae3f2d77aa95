"""Failure is as good as success: one sentence, the log, nothing left behind, and the next build works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import PLAIN, LocalGlobus

PYTHON = {"base": {"image": "python:3.11-slim"}}

CASES: dict[str, tuple[dict[str, Any], str, str, bool]] = {
    # name: (spec, error code, what the sentence names, whether the build itself began and left a log)
    "a-pip-package-that-does-not-exist": (
        {**PYTHON, "pip": ["no-such-package-cib-flows"]},
        "pip_package_not_found",
        "'no-such-package-cib-flows'",
        True,
    ),
    "an-apt-package-that-does-not-exist": (
        {**PLAIN, "apt": ["no-such-package-cib-flows"]},
        "apt_package_not_found",
        "'no-such-package-cib-flows'",
        True,
    ),
    "a-base-tag-that-does-not-exist": (
        {**PLAIN, "base": {"image": "python:3.99-nothing"}},
        "base_not_found",
        "python:3.99-nothing",
        False,
    ),
    "a-verify-import-that-fails": (
        {**PLAIN, "verify": {"imports": ["no_such_module"]}},
        "verify_import_failed",
        "'no_such_module'",
        True,
    ),
    "a-verify-command-that-fails": (
        {**PLAIN, "verify": {"commands": ["echo looked around >&2; exit 4"]}},
        "verify_command_failed",
        "status 4",
        True,
    ),
    "an-extra-command-that-fails": (
        {**PLAIN, "commands": ["true", "ls /no/such/folder"]},
        "command_failed",
        "ls /no/such/folder",
        True,
    ),
    "versions-that-conflict": (
        {**PYTHON, "pip": ["requests==2.31.0", "urllib3==1.20"]},
        "pip_conflict",
        "requests",
        True,
    ),
    "a-worker-version-that-conflicts": (
        {**PYTHON, "pip": ["dill==0.3.6"]},
        "pip_conflict",
        "dill",
        True,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_failure_is_told_in_one_sentence_and_leaves_nothing(
    globus: LocalGlobus, case: str
) -> None:
    spec, code, named, has_log = CASES[case]
    answer = globus.build({"name": case, **spec})
    assert answer.code == 1
    document = answer.document
    failure = document["failure"]
    assert failure["code"] == code, failure
    assert named in failure["sentence"]
    assert failure["sentence"].count("\n") == 0
    assert failure["hint"]
    run = Path(globus.root / "runs" / document["run_id"])
    assert (run / "result.json").exists()
    if has_log:
        assert Path(failure["log_path"]) == run / "build.log"
        assert Path(failure["log_path"]).read_text()
        assert failure["log_tail"]
    assert globus.leftovers() == []
    assert not (globus.root / "images" / case).exists()
    assert not (globus.root / "tags" / case).exists()
    status = globus.cli("status", document["run_id"], "--json").document
    assert status["status"] == "FAILED"


def test_the_terminal_shows_the_sentence_the_log_and_its_end(globus: LocalGlobus) -> None:
    path = globus.write_spec(
        {"name": "told", **PLAIN, "commands": ["echo before the end", "cat /no/such/file"]}
    )
    answer = globus.cli("build", path)
    assert answer.code == 1
    assert "cat /no/such/file" in answer.errors
    assert "build.log" in answer.errors
    assert "before the end" in answer.errors
    assert "Traceback" not in answer.errors + answer.output


def test_the_next_good_build_succeeds_after_a_failed_one(globus: LocalGlobus) -> None:
    failed = globus.build({"name": "again", **PLAIN, "commands": ["false"]})
    assert failed.code == 1
    container = globus.built({"name": "again", **PLAIN, "commands": ["true"]})
    assert globus.inside(container, "echo", "it runs") == "it runs\n"


def test_a_base_whose_python_is_too_old_is_refused_before_anything_is_installed(
    globus: LocalGlobus,
) -> None:
    """No old base is at hand, so the image's python3 is replaced by one that says it is old."""
    old = globus.built(
        {
            "name": "old-python",
            **PLAIN,
            "commands": [
                "rm /usr/bin/python3",
                r"printf '#!/bin/sh\n[ x$1 = x--version ] && echo Python 3.8.1 && exit 0\nexit 1\n' > /usr/bin/python3",
                "chmod 755 /usr/bin/python3",
            ],
        }
    )
    base = {"bootstrap": "localimage", "image": old["path"]}
    answer = globus.build({"name": "on-old", "base": base, "pip": ["six"]})
    assert answer.code == 1
    failure = answer.document["failure"]
    assert failure["code"] == "python_too_old"
    assert "3.8.1" in failure["sentence"]
    assert "==> pip" not in Path(failure["log_path"]).read_text()
    plain = globus.built({"name": "on-old", "base": base, "worker": "none"})
    assert globus.inside(plain, "python3", "--version").strip() == "Python 3.8.1"


def test_a_tag_that_names_an_old_python_is_refused_at_once(globus: LocalGlobus) -> None:
    answer = globus.cli(
        "build", globus.write_spec({"name": "old", "base": {"image": "python:3.8"}})
    )
    assert answer.code == 2
    assert "3.8" in answer.errors
    assert "3.10" in answer.errors
    assert len(answer.errors.strip().splitlines()) <= 2


def test_a_base_without_python_gets_one(globus: LocalGlobus) -> None:
    container = globus.built(
        {"name": "brought-python", "base": {"image": "debian:nopython-slim"}, "pip": ["six"]}
    )
    assert globus.inside(container, "python3", "-c", "import six; print(six.__name__)") == "six\n"
