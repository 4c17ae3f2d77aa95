"""What the verification finds in real images, good and bad."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import PLAIN, LocalGlobus

# One environment for most of these, so that it is built once and kept.
WITH_JINJA = {**PLAIN, "pip": ["jinja2"], "verify": {"imports": []}}
# Apptainer's own configuration mounts this into every container, and a site's may mount whole software trees.
NOTHING_OF_THE_SITE = "! grep -q ' /etc/localtime ' /proc/self/mountinfo"


def refused(globus: LocalGlobus, code: str, **fields: Any) -> str:
    answer = globus.build({**WITH_JINJA, **fields})
    assert answer.code == 1, answer.output
    failure = answer.document["failure"]
    assert failure["code"] == code, failure
    assert globus.leftovers() == []
    return str(failure["sentence"])


def verification_of(container: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(Path(container["path"]).with_suffix(".json").read_text())
    found: dict[str, Any] = record["verification"]
    return found


def test_a_sound_image_is_proved_in_every_point(globus: LocalGlobus) -> None:
    made = globus.built(
        {
            **PLAIN,
            "name": "sound",
            "apt": ["openmpi-bin"],
            "pip": ["jinja2"],
            "mounts": ["/scratch"],
            "verify": {
                "files": ["/usr/bin/mpiexec"],
                "mpi": True,
                "commands": [NOTHING_OF_THE_SITE, "getent hosts localhost"],
            },
        }
    )
    found = verification_of(made)
    assert found["mpi"] == ["rank 0 of 2", "rank 1 of 2"]
    assert found["imports"] == ["jinja2"]
    assert found["mounts"] == ["/scratch"]
    assert found["files"] == ["/usr/bin/mpiexec"]
    assert found["locale"] == "C.UTF-8"
    assert found["architecture"] == os.uname().machine
    for point in (
        "arguments_pass_through",
        "user_packages_are_shut_out",
        "requirements_hold",
        "debian_packages_are_whole",
    ):
        assert found[point] is True, point
    assert found["unreadable"] == []


def test_the_digest_of_the_file_system_is_apptainers_own(globus: LocalGlobus) -> None:
    made = globus.built({**WITH_JINJA, "name": "digested"})
    listed = subprocess.run(
        ["apptainer", "sif", "list", made["path"]], capture_output=True, text=True, check=True
    )
    line = next(line for line in listed.stdout.splitlines() if "Squashfs" in line)
    dumped = subprocess.run(
        ["apptainer", "sif", "dump", line.split("|")[0].strip(), made["path"]],
        capture_output=True,
        check=True,
    )
    digest = hashlib.sha256(dumped.stdout).hexdigest()
    assert verification_of(made)["squashfs_sha256"] == digest


def test_packages_in_the_users_home_must_stay_out(globus: LocalGlobus) -> None:
    refused(globus, "verify_host_leak", name="leaking", environment={"PYTHONNOUSERSITE": ""})


def test_a_package_removed_behind_pips_back_is_noticed(globus: LocalGlobus) -> None:
    command = "/opt/cib/venv/bin/python -m pip uninstall -y markupsafe"
    sentence = refused(globus, "verify_inconsistent", name="gutted", commands=[command])
    assert "jinja2 requires MarkupSafe" in sentence


def test_a_file_that_only_root_can_read_is_noticed(globus: LocalGlobus) -> None:
    commands = ["touch /opt/cib/secret", "chmod 600 /opt/cib/secret"]
    sentence = refused(globus, "verify_file_unreadable", name="shut", commands=commands)
    assert "/opt/cib/secret" in sentence


def test_a_broken_debian_package_is_noticed(globus: LocalGlobus) -> None:
    command = (
        "sed -i '/^Package: ca-certificates$/,/^$/s/^Status: .*/Status: install ok half-configured/' "
        "/var/lib/dpkg/status"
    )
    sentence = refused(globus, "verify_inconsistent", name="half", commands=[command])
    assert "ca-certificates" in sentence


def test_a_file_that_was_promised_is_looked_for(globus: LocalGlobus) -> None:
    sentence = refused(
        globus,
        "verify_file_missing",
        name="promised",
        verify={"imports": [], "files": ["/opt/model.bin"]},
    )
    assert "/opt/model.bin" in sentence


def test_mpi_needs_an_mpi(globus: LocalGlobus) -> None:
    sentence = refused(globus, "verify_mpi", name="no-mpi", verify={"imports": [], "mpi": True})
    assert "mpiexec" in sentence


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this node has an NVIDIA driver")
def test_a_gpu_needs_a_gpu(globus: LocalGlobus) -> None:
    sentence = refused(globus, "verify_gpu", name="no-gpu", verify={"imports": [], "gpu": "nvidia"})
    assert "this node has no driver" in sentence
