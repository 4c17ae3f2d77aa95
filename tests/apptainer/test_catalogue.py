"""The catalogue with real images: proved again, brought from elsewhere, removed while they run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from .conftest import PLAIN, LocalGlobus


def test_a_container_is_proved_again_and_a_changed_byte_is_noticed(globus: LocalGlobus) -> None:
    made = globus.built({**PLAIN, "name": "proved", "verify": {"commands": ["true"]}})
    assert (
        globus.cli("containers", "verify", "proved", "--json").document["sha256"] == made["sha256"]
    )
    path = Path(made["path"])
    whole = path.read_bytes()
    path.chmod(0o644)
    try:
        with path.open("r+b") as file:
            file.seek(len(whole) // 2)
            file.write(bytes([whole[len(whole) // 2] ^ 1]))
        answer = globus.cli("containers", "verify", "proved", "--json")
        assert answer.code == 1
        assert answer.document["error"]["code"] == "image_changed"
    finally:
        path.write_bytes(whole)
        path.chmod(0o444)
    events = globus.cli("containers", "history", "proved", "--json").document["events"]
    assert [event.get("code") for event in events[:2]] == ["image_changed", None]


def test_an_image_brought_from_elsewhere_is_registered_and_has_the_same_id(
    globus: LocalGlobus,
) -> None:
    made = globus.built({**PLAIN, "name": "origin", "environment": {"HERE": "there"}})
    copy, record = globus.root / "from-elsewhere.sif", globus.root / "from-elsewhere.json"
    shutil.copyfile(made["path"], copy)
    shutil.copyfile(made["path"].removesuffix(".sif") + ".json", record)
    sha256 = hashlib.sha256(copy.read_bytes()).hexdigest()
    answer = globus.cli(
        "containers", "register", str(copy), "from-elsewhere:v1", "--sha256", sha256, "--json"
    )
    assert answer.code == 0, answer.errors
    assert answer.document["container_id"] == made["container_id"]
    assert answer.document["path"] != made["path"]
    assert not copy.exists()
    shown = globus.cli("containers", "show", "from-elsewhere:v1", "--json").document["record"]
    assert shown["origin"]["container_id"] == made["container_id"]
    listed = globus.cli("containers", "list", "--name", "from-elsewhere", "--json").document
    assert [row["tags"] for row in listed["containers"]] == [["v1"]]


def test_a_job_runs_on_in_an_image_that_is_removed_meanwhile(globus: LocalGlobus) -> None:
    made = globus.built({**PLAIN, "name": "busy", "environment": {"BUSY": "yes"}})
    job = subprocess.Popen(
        ["apptainer", "--silent", "exec", made["path"], "/bin/sh", "-c", "echo up; read word; ls /usr/bin; echo $word"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )  # fmt: skip
    assert job.stdin is not None
    assert job.stdout is not None
    assert job.stdout.readline() == "up\n"
    refused = globus.cli("containers", "remove", "busy", "--json")
    assert (refused.code, refused.document["error"]["code"]) == (1, "in_use")
    assert globus.cli("containers", "remove", "busy", "--force").code == 0
    assert not Path(made["path"]).exists()
    output, _ = job.communicate("done\n", timeout=60)
    assert job.returncode == 0
    assert output.endswith("done\n")
    assert "env" in output.splitlines()
    # the cache does not answer with what is gone
    again = globus.built({**PLAIN, "name": "busy", "environment": {"BUSY": "yes"}})
    assert again["cached"] is False
