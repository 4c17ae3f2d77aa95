# ruff: noqa: E501 - the lines of the tools stay as long as they are
"""Every signature against the words of the tools themselves."""

from __future__ import annotations

import re

import pytest

from cib_flows.functions._shared.diagnostics import ROWS, diagnose
from cib_flows.functions._shared.results import ERROR_CODES

APT = """\
Reading package lists...
Building dependency tree...
"""
UV_MISSING = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because nosuchpackage was not found in the package registry and you
      require nosuchpackage, we can conclude that your requirements are
      unsatisfiable.
FATAL:   While performing build: while running %post section: exit status 1
"""
UV_VERSION = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because there is no version of pandas==99.1 and you require
      pandas==99.1, we can conclude that your requirements are unsatisfiable.
"""
UV_CONFLICT = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because botocore==1.29.0 depends on urllib3>=1.25.4,<1.27 and you require urllib3==2.0, we can
      conclude that your requirements are unsatisfiable.
"""
PIP_MISSING = """\
Looking in indexes: https://pypi.example.org/simple
ERROR: Could not find a version that satisfies the requirement nosuchpackage (from versions: none)
ERROR: No matching distribution found for nosuchpackage
FATAL:   While performing build: while running %post section: exit status 1
"""
PIP_VERSION = """\
ERROR: Could not find a version that satisfies the requirement pandas==99.1 (from versions: 0.1, 2.2.3)
ERROR: No matching distribution found for pandas==99.1
"""
PIP_CONFLICT = """\
ERROR: Cannot install botocore==1.29.0 and urllib3==2.0 because these package versions have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit the documentation
"""
# A log, the code it must give, and what the sentence must name.
LOGS: list[tuple[str, str, str]] = [
    (APT + "E: Unable to locate package gti\nFATAL:   While performing build: exit status 100\n", "apt_package_not_found", "'gti'"),
    (APT + "E: Couldn't find any package by glob 'libpng99.*'\n", "apt_package_not_found", "'libpng99.*'"),
    (APT + "E: Couldn't find any package by regex 'libpng99.0'\n", "apt_package_not_found", "'libpng99.0'"),
    (APT + "Package python2 is not available, but is referred to by another package.\nE: Package 'python2' has no installation candidate\n", "apt_package_not_found", "'python2'"),
    (APT + "E: Version '99' for 'git' was not found\n", "apt_package_not_found", "'git' has no version 99"),
    (UV_MISSING, "pip_package_not_found", "'nosuchpackage'"),
    ("error: Because x was not found in the provided package locations\n", "pip_package_not_found", "'x'"),
    (UV_VERSION, "pip_package_not_found", "'pandas==99.1'"),
    (UV_CONFLICT, "pip_conflict", "urllib3"),
    ("  × No solution found when resolving dependencies:\n  ╰─▶ (reasons)\n", "pip_conflict", "cannot be installed together"),
    (PIP_MISSING, "pip_package_not_found", "'nosuchpackage'"),
    (PIP_VERSION, "pip_package_not_found", "'pandas==99.1'"),
    (PIP_CONFLICT, "pip_conflict", "botocore==1.29.0 and urllib3==2.0"),
    ("  error: command 'gcc' failed: No such file or directory\n  ERROR: Failed building wheel for x\nERROR: Failed to build installable wheels for some pyproject.toml based projects (mpi4py)\n", "pip_failed", ""),
    ("  × Failed to build `mpi4py==4.0.0`\n  ├─▶ The build backend returned an error\n", "pip_failed", "'mpi4py"),
    ("error    libmamba Could not solve for environment specs\nnothing provides requested nosuch 1.0**\n", "conda_package_not_found", "nosuch 1.0"),
    ("Cannot solve the request because of: No candidates were found for nosuch *.\n", "conda_package_not_found", "nosuch"),
    ("PackagesNotFoundError: The following packages are not available from current channels:\n", "conda_package_not_found", ""),
    ("FATAL:   While performing build: conveyor failed to get: toomanyrequests: You have reached your unauthenticated pull rate limit.\n", "registry_rate_limit", ""),
    ("FATAL:   While performing build: conveyor failed to get: GET https://r.example.org/v2/x/manifests/1: MANIFEST_UNKNOWN: manifest unknown\n", "base_not_found", ""),
    ("FATAL:   While performing build: conveyor failed to get: GET https://r.example.org/v2/: UNAUTHORIZED: authentication required\n", "registry_denied", ""),
    ("FATAL:   Building from a definition file unprivileged requires either a suid installation or unprivileged user namespaces\n", "apptainer_unusable", "user namespaces"),
    ("ERROR  : Failed to create user namespace: maximum number of user namespaces exceeded, check /proc/sys/user/max_user_namespaces\n", "apptainer_unusable", "user namespaces"),
    ("ERROR : 'newgidmap' execution failed. Check that 'newgidmap' is setuid root or has setcap cap_setgid+eip.\n", "apptainer_unusable", "subordinate ids"),
    ("FATAL:   newuidmap was not found in PATH (/usr/bin)\n", "apptainer_unusable", "subordinate ids"),
    ("FATAL:   /etc/subuid mapping found but no user namespace available for fakeroot\n", "apptainer_unusable", "user namespaces"),
    ("ERROR  : Could not write info to setgroups: Permission denied\n", "apptainer_unusable", "user namespaces"),
    ("FATAL:   While performing build: 'noexec' mount option set on /scratch, temporary root filesystem won't be usable at this location\n", "apptainer_unusable", "/scratch"),
    ("FATAL:   container creation failed: mount /opt/cray->/opt/cray error: destination /opt/cray doesn't exist in container\n", "apptainer_unusable", "/opt/cray"),
    ("FATAL:   While performing build: packer failed to pack: write /tmp/build-temp-1/x: no space left on device\n", "disk_full", "disk space"),
    ("tar: x: Cannot write: Disk quota exceeded\n", "disk_full", "disk space"),
    ("Err:1 http://deb.example.org/debian bookworm InRelease\n  Temporary failure resolving 'deb.example.org'\nE: Unable to locate package git\n", "network", "resolved"),
    ("fatal: unable to access 'https://x/': Could not resolve host: x\n", "network", "resolved"),
    ("SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate\n", "network", "certificate"),
    ("error: invalid peer certificate: UnknownIssuer\n", "network", "certificate"),
    ("/.post.script: 12: nosuch: not found\nFATAL:   While performing build: while running %post section: exit status 127\n", "command_failed", "does not exist"),
]  # fmt: skip


@pytest.mark.parametrize(("log", "code", "named"), LOGS, ids=range(len(LOGS)))
def test_a_known_cause_is_named(log: str, code: str, named: str) -> None:
    found, message, hint = diagnose("INFO:    Starting build...\n" + log)
    assert found == code
    assert named in message
    assert message.endswith(".")
    assert hint.endswith(".")
    assert "{" not in message


def test_every_row_has_a_log_and_a_code_of_the_list() -> None:
    lines = [line for log, _, _ in LOGS for line in log.splitlines()]
    for code, pattern, _, _ in ROWS:
        assert code in ERROR_CODES
        assert any(re.search(pattern, line) for line in lines), pattern


def test_the_first_telling_line_counts() -> None:
    first = "E: Unable to locate package first\n"
    assert "'first'" in diagnose(first + "E: Unable to locate package second\n" + UV_MISSING)[1]
    assert diagnose("write: No space left on device\n" + first)[0] == "disk_full"
    assert diagnose(first + "write: No space left on device\n")[0] == "apt_package_not_found"


def test_an_unknown_cause_is_not_guessed() -> None:
    assert diagnose("all is well\n")[0] == "build_failed"
    assert diagnose("")[0] == "build_failed"


def test_a_log_that_is_one_endless_line_is_read_quickly() -> None:
    """Bounded work, not a measured time: the patterns see the line's beginning only."""
    line = "Because only no version " + "a" * 2_000_000
    assert diagnose(line)[0] == "build_failed"


def test_what_a_log_says_is_shown_on_one_bounded_line() -> None:
    _, message, _ = diagnose("E: Unable to locate package " + "x" * 5000 + "\n")
    assert len(message) < 400
