"""Verification around a stand-in for Apptainer that runs the image's commands on this machine."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions.abort_build import abort_build
from cib_flows.functions.verify_image import verify_image
from tests.functions.conftest import Apptainer, Run, Site

Built = Callable[..., tuple[Run, str]]
ENDPOINT = "globus-compute-endpoint"


def verified(made: tuple[Run, str]) -> dict[str, Any]:
    result = verify_image(made[0].id, made[1])
    assert result["ok"] is True, result
    return result


def refused(made: tuple[Run, str], code: str) -> dict[str, str]:
    result = verify_image(made[0].id, made[1])
    assert result["ok"] is False
    assert result["error"]["code"] == code, result["error"]
    error: dict[str, str] = result["error"]
    return error


def probe_answer(**fields: Any) -> dict[str, Any]:
    """What the probe would print in an image of our choice."""
    found = {
        "python": "3.11.2",
        "executable": "/opt/cib/venv/bin/python3",
        "packages": {},
        "missing": [],
        "imported": [],
        "failed": {},
        "encoding": "utf-8",
        "conflicts": [],
        "pip": [],
        "conda": [],
        **fields,
    }
    return {"to": "python3", "output": json.dumps(found)}


def test_an_image_without_python_is_proved_by_its_arguments_alone(
    built: Built, apptainer: Apptainer
) -> None:
    run, sha256 = built()
    result = verified((run, sha256))
    assert (result["python"], result["package_count"], result["sif_sha256"]) == (None, 0, sha256)
    record = json.loads(Path(result["verification_path"]).read_text())
    assert record["arguments_pass_through"] is True
    (words,) = apptainer.ran
    assert words[:2] == ["run", "--containall"]
    assert "--cleanenv" in words
    assert sorted(p.name for p in run.work.iterdir()) == ["image.sif"]


def test_a_runscript_that_splits_its_arguments_is_refused(
    built: Built, apptainer: Apptainer
) -> None:
    apptainer.control(
        image="SIF", answers=[{"to": "/bin/sh", "output": "<plain>\n<two>\n<words>\n"}]
    )
    error = refused(built(), "verify_arguments")
    assert "<two>" in error["log_tail"]


def test_a_runscript_that_ignores_its_arguments_is_refused(
    built: Built, apptainer: Apptainer
) -> None:
    apptainer.control(image="SIF", answers=[{"to": "/bin/sh", "output": "Welcome!\n"}])
    refused(built(), "verify_arguments")


def test_an_image_that_does_not_start_is_told_in_apptainers_words(
    built: Built, apptainer: Apptainer
) -> None:
    apptainer.control(
        image="SIF",
        answers=[
            {"to": "/bin/sh", "errors": "INFO: x\nFATAL:   squashfuse not found\n", "status": 255}
        ],
    )
    assert "squashfuse not found" in refused(built(), "image_unreadable")["message"]


def test_requested_packages_are_looked_for_and_imported(
    built: Built, apptainer: Apptainer, tmp_path: Path
) -> None:
    """The real probe, in this machine's Python with a small site of its own."""
    packages = tmp_path / "packages"
    for name, version, module in (("Good.Name", "1.0", "good_name"), ("no-modules", "2.0", "")):
        info = packages / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text(f"{module}.py,,\n" if module else "")
        if module:
            (packages / f"{module}.py").write_text("print('hello from an import')\n")
    apptainer.program(
        "python3", f'#!/bin/sh\nexport PYTHONPATH={packages}\nexec {sys.executable} "$@"\n'
    )
    made = built(pip=["good_name[x]>=1", "no_modules", "absent ; python_version < '3'"])
    result = verified(made)
    assert result["imports"] == 1
    record = json.loads(Path(result["verification_path"]).read_text())
    assert record["imports"] == ["good_name"]
    assert record["packages"]["good-name"] == "1.0"

    error = refused(built(pip=["absent"]), "verify_package_missing")
    assert "'absent'" in error["message"]

    (packages / "good_name.py").write_text("import not_there_at_all\n")
    error = refused(built(pip=["Good-Name"]), "verify_import_failed")
    assert "'good_name', which 'pip' brings" in error["message"]
    assert "ModuleNotFoundError" in error["message"]

    (packages / "good_name.py").write_text("import os; os.abort()\n")
    error = refused(built(pip=["good.name"]), "verify_import_failed")
    assert "Python crashed while importing it" in error["message"]

    assert verified(built(pip=["good.name"], verify={"imports": []}))["imports"] == 0


def test_imports_of_the_spec_take_the_place_of_the_packages_own(
    built: Built, apptainer: Apptainer
) -> None:
    verified(built(verify={"imports": ["json", "xml.dom"]}))
    error = refused(built(verify={"imports": ["json", "no_such_module"]}), "verify_import_failed")
    assert "'no_such_module', which 'verify.imports' asks for" in error["message"]


@pytest.mark.parametrize(
    "output",
    [
        "",
        "Python 2.7\n",
        "[]",
        "{}",
        '{"python": 3}',
        *(
            json.dumps({**json.loads(probe_answer()["output"]), **odd})
            for odd in (
                {"packages": {"a": 1}},
                {"missing": [1]},
                {"conflicts": ["a"]},
                {"pip": [1]},
            )
        ),
        "[" * 100_000,
    ],
    ids=[
        "nothing",
        "text",
        "list",
        "empty",
        "types",
        "version",
        "missing",
        "conflicts",
        "pip",
        "deep",
    ],
)
def test_a_python_that_answers_something_else_is_refused(
    built: Built, apptainer: Apptainer, output: str
) -> None:
    apptainer.control(image="SIF", answers=[{"to": "python3", "output": output}])
    refused(built(pip=["numpy"]), "python_missing")


def test_odd_text_from_the_image_cannot_spoil_the_result(
    built: Built, apptainer: Apptainer
) -> None:
    answer = probe_answer(
        python="3" * 5000,
        packages={f"p{n}": "😀" * 500 for n in range(50)},
        imported=["a"],
        executable="\ud800",
    )
    apptainer.control(image="SIF", answers=[answer])
    result = verified(built(pip=["numpy"]))
    assert len(result["python"]) <= 40
    assert json.loads(Path(result["verification_path"]).read_text())["packages"]["p1"].startswith(
        "😀"
    )


def test_a_failing_import_with_a_long_foreign_reason_fits_the_result(
    built: Built, apptainer: Apptainer
) -> None:
    apptainer.control(image="SIF", answers=[probe_answer(failed={"m" * 250: "😀" * 3000})])
    error = refused(built(pip=["numpy"]), "verify_import_failed")
    assert len(json.dumps(error["message"])) < 1000


def test_the_worker_must_be_the_endpoints_own(
    built: Built, apptainer: Apptainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {ENDPOINT: "4.19.0", "parsl": "2026.7.6"}
    monkeypatch.setattr("importlib.metadata.version", lambda name: versions[name])
    good = probe_answer(packages={**versions, "numpy": "2.0"})
    apptainer.control(image="SIF", answers=[good, {"to": ENDPOINT}])
    result = verified(built(worker="endpoint"))
    assert result["packages"] == versions
    assert result["package_count"] == 3

    other = probe_answer(packages={**versions, "parsl": "2025.1.1"})
    apptainer.control(image="SIF", answers=[other, {"to": ENDPOINT}])
    error = refused(built(worker="endpoint"), "verify_version_mismatch")
    assert "has parsl 2025.1.1, and the endpoint needs 2026.7.6" in error["message"]

    broken = {"to": ENDPOINT, "status": 1, "errors": "ImportError: dill\n"}
    apptainer.control(image="SIF", answers=[good, broken])
    error = refused(built(worker="endpoint"), "verify_version_mismatch")
    assert "does not start (exit status 1)" in error["message"]
    assert "ImportError: dill" in error["log_tail"]


def test_commands_of_the_spec_run_in_order_and_the_first_failure_counts(
    built: Built, apptainer: Apptainer
) -> None:
    result = verified(built(verify={"commands": ["echo 'one  two'", "true"]}))
    record = json.loads(Path(result["verification_path"]).read_text())
    assert record["commands"] == [
        {"command": "echo 'one  two'", "output": "one  two\n"},
        {"command": "true", "output": ""},
    ]
    error = refused(
        built(verify={"commands": ["true", "echo why >&2; exit 4", "touch /never"]}),
        "verify_command_failed",
    )
    assert "ended with status 4: echo why" in error["message"]
    assert error["log_tail"] == "why\n"


def test_a_command_that_prints_without_end_fills_nothing(
    built: Built, apptainer: Apptainer, site: Site
) -> None:
    site.set(verify_time_limit_s=1.0)
    error = refused(built(verify={"commands": ["yes"]}), "time_limit")
    assert "1 seconds" in error["message"]


def test_an_abort_stops_a_verification_under_way(
    built: Built, apptainer: Apptainer, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    run, sha256 = built(verify={"commands": [f"touch {begun}; sleep 600"]})
    results: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=lambda: results.append(verify_image(run.id, sha256)), daemon=True
    )
    thread.start()
    tries = threading.Event()
    while not begun.exists():
        assert thread.is_alive()
        tries.wait(0.02)
    abort_build(run.id)
    thread.join(60)
    assert results[0]["error"]["code"] == "aborted"
    assert not run.work.exists()


def test_another_image_than_the_built_one_is_not_verified(
    built: Built, apptainer: Apptainer
) -> None:
    run, sha256 = built()
    (run.work / "image.sif").write_text("SIF two")
    refused((run, sha256), "image_changed")


def test_a_package_in_the_users_home_must_not_be_found(built: Built, apptainer: Apptainer) -> None:
    verified(built(verify={"imports": ["json"]}))
    homes = [words[words.index("--home") + 1] for words in apptainer.ran if "--home" in words]
    assert len(homes) == 1
    apptainer.control(image="SIF", answers=[probe_answer(decoy=True)])
    assert "PYTHONNOUSERSITE" in refused(built(pip=["numpy"]), "verify_host_leak")["hint"]


def test_the_network_is_shut_off_where_the_node_allows_it(
    built: Built, apptainer: Apptainer
) -> None:
    result = verified(built())
    assert json.loads(Path(result["verification_path"]).read_text())["network"] == "none"
    assert "--net" in apptainer.ran[0]

    shut = {"to": "--net", "errors": "FATAL: no network namespaces\n"}
    apptainer.control(image="SIF", refuses=[shut])
    result = verified(built(verify={"commands": ["true"]}))
    assert "of the node" in json.loads(Path(result["verification_path"]).read_text())["network"]
    assert "--net" not in apptainer.ran[-1]


def test_python_packages_that_do_not_fit_together_are_refused(
    built: Built, apptainer: Apptainer
) -> None:
    answer = probe_answer(conflicts=[["pandas", "numpy>=2", "1.26.0"]])
    apptainer.control(image="SIF", answers=[answer])
    error = refused(built(pip=["pandas"]), "verify_inconsistent")
    assert "pandas requires numpy>=2, and the image has 1.26.0" in error["message"]
    apptainer.control(image="SIF", answers=[probe_answer(conflicts=[["pandas", "numpy>=2", ""]])])
    assert "has none" in refused(built(pip=["pandas"]), "verify_inconsistent")["message"]


def test_half_installed_debian_packages_are_refused(built: Built, apptainer: Apptainer) -> None:
    apptainer.program("dpkg", "#!/bin/sh\necho 'git: half configured'\n")
    error = refused(built(), "verify_inconsistent")
    assert "git: half configured" in error["message"]

    apptainer.program("dpkg", "#!/bin/sh\n")
    apptainer.program("dpkg-query", "#!/bin/sh\necho 'debian=git 1:2.39 amd64 half-configured'\n")
    assert "git is half-configured" in refused(built(), "verify_inconsistent")["message"]


def test_a_missing_mount_point_is_named(built: Built, apptainer: Apptainer) -> None:
    verified(built(mounts=["/no-such-scratch"]))
    apptainer.control(image="SIF", lacks=["/no-such-scratch"])
    error = refused(built(mounts=["/no-such-scratch"]), "verify_file_missing")
    assert "/no-such-scratch, which 'mounts' names" in error["message"]


def test_a_locale_that_knows_no_utf_8_is_refused(built: Built, apptainer: Apptainer) -> None:
    apptainer.control(image="SIF", environment={"LC_ALL": "POSIX"})
    assert "POSIX" in refused(built(), "verify_environment")["message"]
    # whoever sets it in the spec means it
    verified(built(environment={"LC_ALL": "POSIX"}))
    apptainer.control(image="SIF", answers=[probe_answer(encoding="ascii")])
    assert "ascii" in refused(built(pip=["numpy"]), "verify_environment")["message"]


def test_programs_for_another_processor_are_refused(built: Built, apptainer: Apptainer) -> None:
    # the header of a 64-bit little-endian program for RISC-V
    header = "7f454c460201010000000000000000000200f300"
    apptainer.program("od", f"#!/bin/sh\necho '{header}'\n")
    assert "riscv64" in refused(built(), "verify_architecture")["message"]
