"""The shell functions, each called in a bash of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def bash(common_sh: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'. "$1"\n{script}', "bash", str(common_sh)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment},
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with a tracked, an ignored, a new and a deleted file, and odd names."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / ".gitignore").write_text("ignored\n")
    for name in ("tracked", "deleted", "with space", "ignored"):
        (folder / name).write_text(name)
    (folder / "link").symlink_to("tracked")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "add", "."], check=True)
    (folder / "deleted").unlink()
    (folder / "new").write_text("new")
    return folder


def listed(common_sh: Path, checkout: Path) -> list[str]:
    result = bash(common_sh, f"CIB_CHECKOUT='{checkout}'; list_source_files")
    assert result.returncode == 0, result.stderr
    return result.stdout.split("\0")[:-1]


def test_source_files_are_the_tracked_and_the_new_ones(common_sh: Path, checkout: Path) -> None:
    assert listed(common_sh, checkout) == [".gitignore", "link", "new", "tracked", "with space"]


def test_source_files_without_git(common_sh: Path, checkout: Path) -> None:
    (checkout / ".git").rename(checkout.parent / "elsewhere")
    (checkout / "__pycache__").mkdir()
    (checkout / "__pycache__" / "x.pyc").write_text("")

    names = listed(common_sh, checkout)

    assert "tracked" in names
    assert not [name for name in names if "pycache" in name]


def test_digest_follows_contents_and_modes_but_not_times(common_sh: Path, checkout: Path) -> None:
    def digest() -> str:
        result = bash(common_sh, f"CIB_CHECKOUT='{checkout}'; source_digest")
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    first = digest()
    (checkout / "tracked").touch()
    assert digest() == first
    (checkout / "tracked").chmod(0o755)
    assert digest() != first
    second = digest()
    (checkout / "new").write_text("changed")
    assert digest() != second


def test_a_failing_stage_shows_the_end_of_its_log_and_stops(
    common_sh: Path, tmp_path: Path
) -> None:
    result = bash(
        common_sh,
        """
        works() { echo quiet; }
        breaks() { false; echo "must not go on"; }
        open_log demo
        stage "first thing" works
        stage "second thing" breaks
        echo unreachable
        """,
        CIB_LOG_DIR=str(tmp_path),
    )

    assert result.returncode == 1
    (log,) = tmp_path.iterdir()
    assert f"log: {log}" in result.stdout
    assert "unreachable" not in result.stdout
    assert "must not go on" not in log.read_text()
    assert "quiet" in log.read_text()
    assert "FAILED: second thing" in result.stdout
    assert str(log) in result.stderr


def test_next_subordinate_range_avoids_those_in_use(common_sh: Path, tmp_path: Path) -> None:
    ranges = tmp_path / "subuid"
    ranges.write_text("a:100000:65536\nb:300000:65536\n")

    result = bash(common_sh, f"next_subordinate_range '{ranges}'")

    assert result.stdout.strip() == "365536"


def test_ordinary_users_path_starts_with_the_systems_own_programs(
    common_sh: Path, tmp_path: Path
) -> None:
    result = bash(
        common_sh,
        f"""is_root() {{ false; }}
        run_as_user_in '{tmp_path}' bash -c 'pwd; printf "%s\\n" "$PATH" "$1"' bash 'a  b $c'""",
        PATH="/opt/other/bin:/usr/bin:/bin",
    )

    folder, path, argument = result.stdout.splitlines()
    assert folder == str(tmp_path)
    assert path.startswith("/usr/bin:/bin:")
    assert argument == "a  b $c"


@pytest.mark.parametrize(
    "name",
    [
        "quickstart",
        "test",
        "install_apptainer",
        "install_endpoint",
        "base_registry",
        "rabbitmq",
        "slurm_node",
    ],
)
def test_every_script_says_what_it_does_and_does_nothing_when_it_is_asked(
    common_sh: Path, name: str
) -> None:
    script = common_sh.parents[1] / f"{name}.sh"
    done = subprocess.run(
        ["bash", str(script), "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{name}.sh" in done.stdout
    assert "shellcheck" not in done.stdout
