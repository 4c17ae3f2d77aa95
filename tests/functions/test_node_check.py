"""What a build looks at before it begins: the batch job's end, the node's kernel and folders, the modules."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared import node_check
from cib_flows.functions._shared.modules import load_modules
from cib_flows.functions._shared.node_check import folder_points, mount_of, privilege_points
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions._shared.time_left import within_job
from cib_flows.functions.build_image import build_image
from tests.functions.conftest import Apptainer, Run, Site


def end_in(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIB_JOB_END_S", str(int(time.time() + seconds)))


# --- time left --------------------------------------------------------------------------------------


def test_without_a_batch_job_the_sites_limits_hold(site: Site) -> None:
    site.set(build_time_limit_s=500)
    assert within_job(site.loaded())["build_time_limit_s"] == 500


def test_the_smallest_of_cap_and_time_left_holds(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.set(build_time_limit_s=500, verify_time_limit_s=200)
    end_in(10_000, monkeypatch)
    assert within_job(site.loaded())["build_time_limit_s"] == 500
    end_in(360, monkeypatch)
    limited = within_job(site.loaded())
    assert 290 <= limited["build_time_limit_s"] <= 300  # a minute is kept to clean up and to report
    assert limited["verify_time_limit_s"] == 200


def test_a_job_that_is_about_to_end_is_refused_at_once(
    start: Callable[..., Run], apptainer: Apptainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    end_in(90, monkeypatch)
    result = build_image(run.id, run.recipe_sha256)
    assert result["error"]["code"] == "time_limit"
    assert "which is too little to begin this step" in result["error"]["message"]
    assert not (apptainer.folder / "asked.json").exists()


def test_a_build_is_stopped_before_its_job_is_and_says_so(
    start: Callable[..., Run], apptainer: Apptainer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    site.set(build_time_limit_s=5)
    end_in(62, monkeypatch)  # less a minute: two seconds
    apptainer.control(hangs=True)
    # a site that allows so short builds takes what is left of the job
    monkeypatch.setattr("cib_flows.functions._shared.time_left.LEAST_USEFUL_S", 1)
    monkeypatch.setattr(
        "cib_flows.functions.build_image.prepare_node", lambda site: within_job(site, 1)
    )
    result = build_image(run.id, run.recipe_sha256)
    assert result["error"]["code"] == "time_limit"
    assert result["error"]["message"].endswith("seconds because its batch job ends.")
    assert list(run.work.glob("*")) == []


@pytest.mark.parametrize("text", ["", "soon"])
def test_an_end_that_is_not_a_number_limits_nothing(
    text: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIB_JOB_END_S", text)
    assert within_job(site.loaded())["job_limited"] is False


# --- the node ---------------------------------------------------------------------------------------


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The kernel's files as a test wants them; a file that is not named is not there."""
    files = {"/proc/sys/user/max_user_namespaces": "1000", "/proc/self/status": "NoNewPrivs:\t0\n"}
    monkeypatch.setattr(node_check, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    return files


def states(points: list[dict[str, str]]) -> dict[str, str]:
    return {point["name"]: point["state"] for point in points}


REAL_ROOT = node_check.is_real_root  # which other tests know nothing of
NODE, CONTAINER = "         0          0 4294967295\n", "         0       1000          1\n"


@pytest.mark.parametrize(("uid_map", "is_root"), [(NODE, True), (CONTAINER, False)])
def test_root_of_the_node_is_refused_and_root_of_a_namespace_is_not(
    kernel: dict[str, str],
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    uid_map: str,
    is_root: bool,
) -> None:
    monkeypatch.setattr(node_check, "is_real_root", REAL_ROOT)
    kernel["/proc/self/uid_map"] = uid_map
    assert states(privilege_points()).get("account") is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert states(privilege_points()).get("account") == ("red" if is_root else None)
    if is_root:
        with pytest.raises(StepFailed, match="root of the node") as refused:
            node_check.prepare_node(site.loaded())
        assert "ordinary account" in refused.value.hint
    else:
        node_check.prepare_node(site.loaded())


@pytest.mark.parametrize(
    "path", ["/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_userns_clone"]
)
def test_no_user_namespaces_is_red_and_named(path: str, kernel: dict[str, str]) -> None:
    kernel[path] = "0"
    points = privilege_points()
    assert states(points)["user namespaces"] == "red"
    assert path.rsplit("/", 1)[-1] in points[0]["found"]
    assert "setuid" in points[0]["todo"]


def test_what_a_setuid_starter_makes_up_for_is_yellow(
    kernel: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel["/proc/sys/user/max_user_namespaces"] = "0"
    monkeypatch.setattr(node_check, "has_setuid_starter", lambda: True)
    assert states(privilege_points())["user namespaces"] == "yellow"
    kernel["/proc/self/status"] = "NoNewPrivs:\t1\n"
    assert states(privilege_points())["privileges"] == "red"


def test_no_new_privileges_is_red_where_subordinate_ids_would_be_used(
    kernel: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel["/proc/self/status"] = "Name:\tpython\nNoNewPrivs:\t1\n"
    found = next(point for point in privilege_points() if point["name"] == "privileges")
    assert found["state"] == "yellow"
    assert "pam" in found["todo"]
    kernel["/etc/subuid"] = "4711:165536:65536\n"
    monkeypatch.setattr(node_check.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert states(privilege_points())["privileges"] == "red"
    assert states(privilege_points("ignore-subuid"))["privileges"] == "yellow"


def test_subordinate_ids_that_are_too_few_are_told_from_none(
    kernel: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_check.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "no range" in privilege_points()[1]["found"]
    kernel["/etc/subuid"] = "4711:100000:1000\n"
    assert "below 65536" in privilege_points()[1]["found"]
    kernel["/etc/subuid"] = "somebody:100000:65536\n4711:165536:65536\n"
    assert states(privilege_points())["subordinate ids"] == "green"


MOUNTS = """\
21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:40 / /scratch rw,nosuid - lustre host:/scratch rw,flock
31 21 0:41 / /ram rw,noexec shared:9 - tmpfs tmpfs rw,size=1g
32 21 0:42 / /my\\040disk rw - xfs /dev/b rw
"""


def test_mounts_are_told_by_their_longest_name(kernel: dict[str, str]) -> None:
    kernel["/proc/self/mountinfo"] = MOUNTS
    assert mount_of("/scratch/me")[0] == "lustre"
    assert mount_of("/scratches")[0] == "ext4"
    assert mount_of("/my disk/x")[0] == "xfs"
    assert "noexec" in mount_of("/ram")[1]


def test_a_temporary_folder_that_cannot_run_programs_stops_the_build(
    start: Callable[..., Run],
    apptainer: Apptainer,
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "ram"
    site.set(tmpdir=str(place))
    monkeypatch.setattr(
        node_check, "mount_of", lambda path: ("tmpfs", ["noexec"] if path == str(place) else ["rw"])
    )
    run = start()
    error = build_image(run.id, run.recipe_sha256)["error"]
    assert error["code"] == "apptainer_unusable"
    assert f"{place} (tmpfs" in error["message"]
    assert "'noexec'" in error["message"]
    assert not (apptainer.folder / "asked.json").exists()


def test_a_shared_file_system_is_yellow(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(node_check, "mount_of", lambda path: ("lustre", ["rw"]))
    site.set(tmpdir=str(tmp_path))
    assert states(folder_points(site.loaded(), str(tmp_path))) == {"temporary folder": "yellow"}


def test_a_full_temporary_folder_is_red(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(node_check, "free_bytes", lambda path: 1000)
    site.set(tmpdir=str(tmp_path))
    found = folder_points(site.loaded(), str(tmp_path))[0]
    assert (found["state"], found["code"]) == ("red", "disk_full")


# --- modules ----------------------------------------------------------------------------------------


@pytest.fixture
def module_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``module`` as a site's login shell would define it, which notes how it was called."""
    home = tmp_path / "home"
    home.mkdir()
    calls = tmp_path / "calls"
    (home / ".bash_profile").write_text(
        f"""module() {{
            printf '<%s>' "$@" >>{calls}; echo >>{calls}
            echo "a message of the day"
            case $2 in
                missing) echo 'Lmod has detected the following error: no such module' >&2; return 1 ;;
            esac
            [ "$1" != load ] || export PATH="/soft/$2/bin:$PATH" MODULE_SAYS="two
lines"
        }}\n"""
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("CIB_MODULES_LOADED", "MODULE_SAYS"):
        monkeypatch.setenv(name, "")
    return calls


def profile(site: Site, **fields: Any) -> dict[str, Any]:
    site.set(**fields)
    return site.loaded()


def test_modules_change_the_path_once(site: Site, module_command: Path) -> None:
    given = profile(site, module_paths=["/soft/modulefiles"], modules=["base", "apptainer"])
    load_modules(given)
    load_modules(given)
    assert os.environ["PATH"].startswith("/soft/apptainer/bin:/soft/base/bin:")
    assert os.environ["MODULE_SAYS"] == "two\nlines"
    assert module_command.read_text() == (
        "<use></soft/modulefiles>\n<load><base>\n<load><apptainer>\n"
    )


def test_a_modules_name_reaches_no_shell(site: Site, module_command: Path, tmp_path: Path) -> None:
    load_modules(profile(site, modules=[f"$(touch {tmp_path}/x); touch {tmp_path}/y"]))
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "y").exists()


def test_a_module_that_is_missing_is_named_with_what_was_said(
    site: Site, module_command: Path
) -> None:
    with pytest.raises(
        StepFailed, match="missing cannot be loaded on this node: Lmod has"
    ) as raised:
        load_modules(profile(site, modules=["missing"]))
    assert raised.value.code == "site_invalid"


def test_a_node_without_modules_is_said_so(site: Site, module_command: Path) -> None:
    (Path(os.environ["HOME"]) / ".bash_profile").write_text("")
    with pytest.raises(StepFailed, match="has no 'module' command"):
        load_modules(profile(site, modules=["apptainer"]))


# --- fakeroot ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("always", ["--fakeroot"]),
        ("ignore-subuid", ["--fakeroot", "--ignore-subuid"]),
        ("ignore-fakeroot-command", ["--fakeroot", "--ignore-fakeroot-command"]),
    ],
)
def test_the_site_says_how_a_build_becomes_root(
    mode: str, words: list[str], site: Site, start: Callable[..., Run], apptainer: Apptainer
) -> None:
    site.set(fakeroot=mode)
    run = start()
    assert build_image(run.id, run.recipe_sha256)["ok"] is True
    assert [word for word in apptainer.asked["argv"] if word in words] == words


def test_an_unknown_fakeroot_mode_is_refused(site: Site) -> None:
    site.set(fakeroot="please")
    with pytest.raises(StepFailed, match="wrong value for 'fakeroot'"):
        site.loaded()
