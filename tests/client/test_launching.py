"""The command that an endpoint's template starts workers with, found in the template itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cib_flows.cli import main
from cib_flows.errors import UsageError
from cib_flows.launching import launch_line, shipped_template, sites

IMAGE = "/images/demo/0a.sif"


@pytest.mark.parametrize("site", sites())
def test_every_shipped_template_says_how_it_starts_a_worker(site: str) -> None:
    line = launch_line(shipped_template(site), IMAGE, ["printf", "%s", "two words"], "/run/folder")
    assert line[:2] == ["apptainer", "exec"]
    assert line[-4:] == [IMAGE, "printf", "%s", "two words"]
    assert line[line.index("--bind") + 1] == "/run/folder"
    assert not any("{" in word for word in line)


def test_a_gpu_binds_its_driver_where_the_template_does() -> None:
    assert "--nv" in launch_line(shipped_template("slurm"), IMAGE, [], "/r", "nvidia")
    assert "--rocm" in launch_line(shipped_template("slurm"), IMAGE, [], "/r", "amd")
    with pytest.raises(UsageError, match="knows no GPU"):
        launch_line("  container_cmd_options: >-\n    x {{ {}[gpu] }}\n", IMAGE, [], "/r", "amd")


def test_the_line_is_what_the_rendered_configuration_holds() -> None:
    """Rendered by Jinja, as the endpoint does it, the same words come out."""
    jinja2 = pytest.importorskip("jinja2", reason="comes with globus-compute-endpoint")
    yaml = pytest.importorskip("yaml")
    template = jinja2.Template(shipped_template("local"))
    template.environment.loader = jinja2.DictLoader({})
    text = template.environment.from_string(shipped_template("local")).render(
        container_uri=json.dumps(IMAGE)
    )
    options = yaml.safe_load(text)["engine"]["container_cmd_options"]
    line = launch_line(
        shipped_template("local"), IMAGE, ["{EXECUTOR_LAUNCH_CMD}"], "{EXECUTOR_RUNDIR}"
    )
    assert options.split() == line


def test_a_template_that_starts_no_containers_is_refused() -> None:
    with pytest.raises(UsageError, match="starts no containers"):
        launch_line("engine:\n  type: ProcessPoolEngine\n", IMAGE, [], "/r")


@pytest.fixture
def apptainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that says with which arguments it was started, and ends with 7."""
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit(7)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


def test_the_command_line_runs_it_and_ends_with_its_code(apptainer: Path, tmp_path: Path) -> None:
    image = tmp_path / "demo.sif"
    image.write_text("SIF")
    done = CliRunner().invoke(
        main, ["containers", "test", str(image), "--json", "--", "ls", "-l", "two words"]
    )
    assert done.exit_code == 7
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["returncode"]) == (False, 7)
    assert answer["command"][-4:] == [str(image), "ls", "-l", "two words"]


def test_an_image_that_is_not_here_is_told(apptainer: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["containers", "test", str(tmp_path / "gone.sif")])
    assert done.exit_code == 1
    assert "This computer has no image" in done.stderr
