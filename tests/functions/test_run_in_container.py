"""Code in an image through standard input: what arrives, what comes back, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions import run_in_container as module
from cib_flows.functions._shared import holds as holds_module
from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.holds import holds, storage_time
from cib_flows.functions.collect_garbage import collect_garbage
from cib_flows.functions.remove_container import remove_container
from cib_flows.functions.run_in_container import run_in_container
from tests.functions.catalogues import publish
from tests.functions.conftest import Site

EVERYTHING = {"max_age_s": 0, "keep_last": 0, "min_age_s": 0}

# Runs the words behind the image on this machine, and notes how it was called.
SHIM = """#!{python}
import json, os, sys
words = sys.argv[1:]
json.dump({{"words": words, "names": sorted(os.environ)}}, open({asked!r}, "w"))
at = next(n for n, word in enumerate(words) if word.endswith(".sif"))
if open(words[at]).read() == "broken":
    print("FATAL:   not an image", file=sys.stderr)
    sys.exit(255)
command = words[at + 1:]
os.execvp(command[0], command)
"""


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    shim = folder / "apptainer"
    shim.write_text(SHIM.format(python=sys.executable, asked=str(tmp_path / "asked.json")))
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CIB_FLOWS_SITE", raising=False)
    path = tmp_path / "image.sif"
    path.write_text("SIF")
    return path


def asked(image: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((image.parent / "asked.json").read_text())
    return found


def test_a_script_gets_its_arguments_and_its_status_comes_back(image: Path) -> None:
    source = "import sys\nprint(sys.argv, __name__)\nprint('oh', file=sys.stderr)\nsys.exit(3)"
    result = run_in_container(str(image), source=source, argv=["a b", "$HOME"], script="me.py")
    assert result["ok"] is True
    assert result["returncode"] == 3
    assert result["stdout"] == "['me.py', 'a b', '$HOME'] __main__\n"
    assert result["stderr"] == "oh\n"
    assert "value" not in result


def test_a_functions_value_comes_back_beside_what_it_prints(image: Path) -> None:
    source = (
        "def f(a, b=1):\n    print('noise', end='')\n    return {'sum': a + b, 'text': 'ö\\n'}\n"
    )
    result = run_in_container(str(image), source=source, function="f", args=[3], kwargs={"b": 4})
    assert result["value"] == {"sum": 7, "text": "ö\n"}
    assert result["stdout"] == "noise"
    assert result["returncode"] == 0


def test_a_function_that_fails_leaves_its_traceback_and_no_value(image: Path) -> None:
    result = run_in_container(str(image), source="def f():\n    return 1 / 0", function="f")
    assert result["returncode"] == 1
    assert result["stderr"].rstrip().endswith("ZeroDivisionError: division by zero")
    assert "value" not in result


def test_a_result_that_is_not_json_is_an_error_of_the_code(image: Path) -> None:
    result = run_in_container(str(image), source="def f():\n    return {1, 2}", function="f")
    assert result["returncode"] == 1
    assert "not JSON serializable" in result["stderr"]


def test_output_is_bounded_and_its_end_is_kept(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STREAM_BYTES", 1000)
    monkeypatch.setattr(module, "MAX_VALUE_BYTES", 1000)
    result = run_in_container(str(image), source="print('x' * 10**6)\nprint('the end')")
    assert len(result["stdout"]) <= 1000
    assert result["stdout"].endswith("xx\nthe end\n")
    large = run_in_container(str(image), source="def f():\n    return 'x' * 10**5", function="f")
    assert "the result is larger than 1000 bytes" in large["stderr"]
    assert "value" not in large


def test_a_command_that_takes_too_long_is_ended(image: Path) -> None:
    result = run_in_container(
        str(image), command=["sh", "-c", "echo begun; sleep 987"], timeout_s=1
    )
    assert result["returncode"] == 124
    assert result["stdout"] == "begun\n"


@pytest.mark.parametrize(("gpu", "flag"), [("nvidia", "--nv"), ("amd", "--rocm")])
def test_the_gpus_flag_stands_before_the_image(gpu: str, flag: str, image: Path) -> None:
    run_in_container(str(image), command=["true"], gpu=gpu)
    words = asked(image)["words"]
    assert words.index(flag) < words.index(str(image))


def test_ranks_are_started_by_the_batch_systems_launcher(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a container of its own; a script reaches all of them, though only one has standard input."""
    monkeypatch.chdir(tmp_path)
    launcher = image.parent / "bin" / "srun"
    launcher.write_text(
        '#!/bin/sh\necho srun $1 $2 $3; shift 3; for r in 0 1; do RANK=$r "$@" </dev/null; done\n'
    )
    launcher.chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "2")
    source = "import os, sys\nprint(os.environ['RANK'], sys.argv[1:])"
    result = run_in_container(str(image), source=source, argv=["a"], ranks=2)
    assert result["stdout"] == "srun --overlap -n 2\n0 ['a']\n1 ['a']\n"
    assert list(tmp_path.glob("*.py")) == []
    said = run_in_container(str(image), command=["sh", "-c", "echo $RANK"], ranks=2)["stdout"]
    assert said == "srun --overlap -n 2\n0\n1\n"
    # more than the job has processors share them
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    launcher.write_text("#!/bin/sh\necho $*\n")
    said = run_in_container(str(image), command=["true"], ranks=2)["stdout"]
    assert said.startswith("--overlap --overcommit -n 2 ")


def test_a_launcher_that_is_missing_is_named(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "")
    monkeypatch.setenv("PATH", str(image.parent / "bin"))
    error = run_in_container(str(image), command=["true"], ranks=2)["error"]
    assert error["message"].startswith("'ranks' needs mpiexec, which is not on PATH")


def test_the_endpoints_secrets_stay_outside(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOBUS_COMPUTE_CLIENT_SECRET", "hunter2")
    monkeypatch.setenv("APPTAINER_BIND", "/opt/cray")
    run_in_container(str(image), command=["true"])
    assert not {"GLOBUS_COMPUTE_CLIENT_SECRET", "APPTAINER_BIND"} & set(asked(image)["names"])


def test_control_and_build_nodes_refuse_it(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their account may be a service's, whose files the caller must not read."""
    site = tmp_path / "site.json"
    site.write_text(json.dumps({"root": str(tmp_path / "root")}))
    monkeypatch.setenv("CIB_FLOWS_SITE", str(site))
    result = run_in_container(str(image), command=["true"])
    assert result["ok"] is False
    assert (
        result["error"]["message"] == "run_in_container runs in the endpoint's 'run' profile only."
    )
    assert not (tmp_path / "asked.json").exists()
    monkeypatch.setenv("CIB_FLOWS_RUN", "yes")
    assert run_in_container(str(image), command=["true"])["ok"] is True


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "either 'source' or 'command'"),
        ({"source": "1", "command": ["true"]}, "either 'source' or 'command'"),
        ({"command": []}, "list of words"),
        ({"command": ["--bind", "/"]}, "list of words"),
        ({"command": ["a\0b"]}, "list of words"),
        ({"source": "1", "function": "f(); import os"}, "is not a function's name"),
        ({"source": "1", "function": "f", "ranks": 2}, "not for a function"),
        ({"command": ["true"], "ranks": 0}, "'ranks' is a number above 0"),
        ({"command": ["true"], "gpu": "--bind=/"}, "'gpu' is nvidia or amd"),
    ],
)
def test_what_cannot_be_run_is_refused(given: dict[str, Any], said: str, image: Path) -> None:
    result = run_in_container(str(image), **given)
    assert result["error"]["code"] == "spec_invalid"
    assert said in result["error"]["message"]


@pytest.mark.parametrize("path", ["/nowhere/a.sif", "/etc/passwd"])
def test_an_image_that_is_not_there_is_not_found(path: str, image: Path) -> None:
    result = run_in_container(path, command=["true"])
    assert result["error"]["code"] == "container_not_found"


def test_an_image_that_does_not_start_is_told_from_a_failing_command(image: Path) -> None:
    image.write_text("broken")
    result = run_in_container(str(image), command=["true"])
    assert result["error"]["code"] == "image_unreadable"
    image.write_text("SIF")
    assert run_in_container(str(image), command=["sh", "-c", "exit 255"])["returncode"] == 255


def test_an_image_is_leased_while_it_is_used(
    image: Path, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIB_FLOWS_SITE", str(site.path))
    monkeypatch.setenv("CIB_FLOWS_RUN", "yes")
    record = publish(site.root, "one")
    key = f"{record['name']}@{record['sha256']}"
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = ["sh", "-c", f"read word < {gate}"]
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run_in_container, record["path"], command=command)
        with gate.open("w") as stream:  # opens once the command reads
            now = storage_time(str(site.root))
            found = holds(Catalogue(str(site.root)), now)
            gone = collect_garbage(dry_run=False, rules=EVERYTHING)
            removed = remove_container(record["container_id"], force=True)
            stream.write("go\n")
        result = running.result(60)
    assert result["returncode"] == 0
    assert found == {key: [("lease", "run_in_container")]}
    assert gone["images"]["count"] == 0
    assert removed["error"]["code"] == "in_use"
    assert (site.root / "uses" / key).exists()
    assert collect_garbage(dry_run=False, rules=EVERYTHING)["images"]["count"] == 1


def test_an_image_of_a_catalogue_that_may_only_be_read_runs_without_a_lease(
    image: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = publish(site.root, "one")
    monkeypatch.setenv("CIB_FLOWS_SITE", str(site.path))
    monkeypatch.setenv("CIB_FLOWS_RUN", "yes")

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(holds_module, "write_json", refuse)
    result = run_in_container(record["path"], command=["true"])
    assert (result["ok"], result["returncode"]) == (True, 0)
