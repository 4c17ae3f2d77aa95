"""``doctor`` on this machine as it is, and on nodes that lack what a build needs: each cause is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import REPOSITORY, LocalGlobus

CHECK = """
import json
from cib_flows.functions.check_endpoint import check_endpoint
print(json.dumps(check_endpoint()))
"""
NO_USERNS = [
    "unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c",
    'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh",
]  # fmt: skip


def check(tmp_path: Path, within: list[str], **site: Any) -> dict[str, dict[str, str]]:
    """The function's points by name, run on a node that ``within`` makes worse than this one."""
    if os.geteuid() == 0:
        pytest.skip("builds run as an ordinary user; deploy_scripts/test.sh drops to one")
    profile = tmp_path / "site.json"
    profile.write_text(json.dumps({"root": str(tmp_path / "root"), **site}))
    done = subprocess.run(
        [*within, sys.executable, "-c", CHECK],
        env={**os.environ, "CIB_FLOWS_SITE": str(profile), "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    if done.returncode != 0 and within:
        pytest.skip(f"this machine cannot be made worse by {within[0]}: {done.stderr[-200:]}")
    answer = json.loads(done.stdout)
    assert answer["ok"] is True
    assert len(done.stdout) < 8000
    return {point["name"]: point for point in answer["points"]}


def has_subordinate_ids() -> bool:
    return shutil.which("newuidmap") is not None and any(
        line.startswith(f"{os.environ.get('USER')}:")
        for line in Path("/etc/subuid").read_text().splitlines()
    )


def test_doctor_builds_and_starts_an_image_on_the_endpoint(globus: LocalGlobus) -> None:
    answer = globus.cli("doctor", "--json")
    reports = {report["place"]: report for report in answer.document["reports"]}
    assert list(reports) == ["globus", "control", "build"]
    build = {point["name"]: point for point in reports["build"]["points"]}
    assert build["build"]["found"].startswith("A tiny image was built ")
    assert "through /proc" not in build["build"]["found"]
    assert build["start"]["state"] != "red"
    assert reports["build"]["versions"]["parsl"]
    worst = {report["state"] for report in reports.values()}
    assert answer.code == (1 if "red" in worst else 0)
    said = globus.cli("doctor")
    assert "  engine: apptainer version" in said.output
    assert not list((globus.root).glob(".check-*"))


def test_an_endpoint_that_does_not_exist_is_a_red_point(globus: LocalGlobus) -> None:
    answer = globus.cli("doctor", "--json", "--endpoint", "01234567-89ab-cdef-0123-456789abcdef")
    assert answer.code == 1
    assert answer.document["ok"] is False
    places = {report["place"]: report for report in answer.document["reports"]}
    assert places["globus"]["state"] == "green"
    assert places["control"]["points"][0]["state"] == "red"


@pytest.mark.skipif(not has_subordinate_ids(), reason="this account has no subordinate ids")
def test_the_way_to_root_is_told(tmp_path: Path) -> None:
    points = check(tmp_path, [])
    assert "with subordinate ids" in points["build"]["found"]
    mapped = check(tmp_path, [], fakeroot="ignore-subuid")
    if shutil.which("fakeroot"):
        assert "root-mapped namespace with the fakeroot command" in mapped["build"]["found"]
    bare = check(tmp_path, [], fakeroot="ignore-fakeroot-command")
    assert "with subordinate ids" in bare["build"]["found"]


def test_a_node_without_user_namespaces_is_told_from_a_full_disk(tmp_path: Path) -> None:
    points = check(tmp_path, NO_USERNS)
    assert points["user namespaces"]["state"] == "red"
    assert "max_user_namespaces is 0" in points["user namespaces"]["found"]
    assert points["build"]["state"] == "red"
    assert "user namespaces" in points["build"]["found"]


@pytest.mark.skipif(not has_subordinate_ids(), reason="this account has no subordinate ids")
def test_a_process_without_new_privileges_is_told_what_helps(tmp_path: Path) -> None:
    """As under an endpoint of root's that was set up without PAM."""
    points = check(tmp_path, ["setpriv", "--no-new-privs"])
    assert points["privileges"]["state"] == "red"
    assert points["build"]["state"] == "red"
    assert "subordinate ids cannot be used" in points["build"]["found"]
    assert "'ignore-subuid'" in points["privileges"]["todo"]
    helped = check(tmp_path, ["setpriv", "--no-new-privs"], fakeroot="ignore-subuid")
    assert helped["privileges"]["state"] == "yellow"
    assert helped["build"]["state"] != "red"


def test_a_temporary_folder_mounted_noexec_is_named(tmp_path: Path) -> None:
    place = tmp_path / "ram"
    place.mkdir()
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
             f'mount -t tmpfs -o noexec,size=3g tmpfs {place} && exec "$@"', "sh"]  # fmt: skip
    point = check(tmp_path, mount, tmpdir=str(place))["temporary folder"]
    assert point["state"] == "red"
    assert f"{place} (tmpfs" in point["found"]
    assert "'noexec'" in point["found"]


def test_a_full_temporary_folder_is_named(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
             f'mount -t tmpfs -o size=20m tmpfs {place} && exec "$@"', "sh"]  # fmt: skip
    point = check(tmp_path, mount, tmpdir=str(place))["temporary folder"]
    assert point["state"] == "red"
    assert "too little for any image" in point["found"]


def test_a_registry_and_a_staging_folder_out_of_reach_are_named(tmp_path: Path) -> None:
    staging = {"collection_id": "x", "collection_path": "/", "path": str(tmp_path / "gone")}
    points = check(tmp_path, [], registry_mirrors={"docker.io": "127.0.0.1:9"}, staging=staging)
    assert "127.0.0.1:9 cannot be reached: Connection refused" in points["network"]["found"]
    assert points["network"]["state"] == "red"


def test_a_proxys_password_is_not_shown(tmp_path: Path) -> None:
    points = check(tmp_path, [], proxies={"https": "http://me:hunter2@127.0.0.1:9"})
    assert "the proxy 127.0.0.1:9" in points["network"]["found"].lower()
    assert "hunter2" not in json.dumps(points)
