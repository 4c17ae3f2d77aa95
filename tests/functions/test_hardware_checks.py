"""GPU and MPI checks without either: what is asked of the image, and how its answer is judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared import hardware_checks
from cib_flows.functions._shared.hardware_checks import judge_mpi
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions._shared.spec_check import check_spec
from cib_flows.functions._shared.spec_words import SpecRefused
from tests.functions.conftest import Apptainer, Run
from tests.functions.test_verify_image import refused, verified

Built = Callable[..., tuple[Run, str]]
BOTH = "rank 1 of 2\nrank 0 of 2\n"


@pytest.fixture
def with_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node on which a driver has left its device."""
    device = tmp_path / "nvidiactl"
    device.write_text("")
    monkeypatch.setitem(hardware_checks.GPU_DEVICES, "nvidia", str(device))


def test_a_node_without_the_gpu_is_told_apart_from_an_image_that_fails(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hardware_checks.GPU_DEVICES, "amd", "/dev/no-such-device")
    error = refused(built(verify={"gpu": "amd"}), "verify_gpu")
    assert "AMD GPU, and this node has no driver" in error["message"]


@pytest.mark.usefixtures("with_gpu")
def test_every_start_of_the_image_is_lent_the_gpu(built: Built, apptainer: Apptainer) -> None:
    apptainer.program("nvidia-smi", "#!/bin/sh\necho 'GPU 0: of a test'\n")
    verified(built(verify={"gpu": "nvidia", "commands": ["true"]}))
    assert all("--nv" in words for words in apptainer.ran)

    apptainer.program("nvidia-smi", "#!/bin/sh\necho 'version mismatch' >&2\nexit 9\n")
    error = refused(built(verify={"gpu": "nvidia"}), "verify_gpu")
    assert "exit status 9" in error["message"]
    assert "version mismatch" in error["log_tail"]


def test_two_processes_must_greet(built: Built, apptainer: Apptainer) -> None:
    apptainer.program("mpiexec", "#!/bin/sh\necho 'rank 1 of 2'\necho 'rank 0 of 2'\n")
    verified(built(verify={"mpi": True}))
    apptainer.program("mpiexec", "#!/bin/sh\necho 'rank 0 of 1'\necho 'rank 0 of 1'\n")
    assert (
        "did not find each other" in refused(built(verify={"mpi": True}), "verify_mpi")["message"]
    )


@pytest.mark.parametrize(
    ("status", "output", "said"),
    [
        (0, "rank 0 of 2\n", "did not find"),
        (1, BOTH, "exit status 1"),
        (64, "", "has no mpiexec"),
        (0, BOTH + "rank 0 of 2\n", "did not find"),
    ],
)
def test_nothing_less_than_both_is_mpi(status: int, output: str, said: str) -> None:
    assert judge_mpi(0, "hello\n" + BOTH, "") == ["rank 0 of 2", "rank 1 of 2"]
    with pytest.raises(StepFailed, match=said):
        judge_mpi(status, output, "")


def test_files_that_were_promised_are_looked_for(
    built: Built, apptainer: Apptainer, tmp_path: Path
) -> None:
    there = tmp_path / "model.bin"
    there.write_text("")
    verified(built(verify={"files": [str(there), "/bin"]}))
    error = refused(built(verify={"files": [str(there), "/no/such/file"]}), "verify_file_missing")
    assert "/no/such/file, which 'verify.files' names" in error["message"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"verify": {"gpu": "intel"}}, "verify.gpu"),
        ({"verify": {"gpu": ["nvidia"]}}, "verify.gpu"),
        ({"verify": {"mpi": "yes"}}, "verify.mpi"),
        ({"verify": {"files": ["relative"]}}, "verify.files[0]"),
        ({"verify": {"files": ["/a/../etc"]}}, "verify.files[0]"),
        ({"verify": {"files": ["/a b"]}}, "verify.files[0]"),
        ({"locked": "../../etc/passwd"}, "locked"),
        ({"locked": "a" * 63}, "locked"),
        ({"locked": 3}, "locked"),
        ({"locked": "demo:latest"}, "locked"),
    ],
)
def test_specs_that_ask_for_it_wrongly_are_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecRefused) as refusal:
        check_spec({"name": "demo", "base": {"image": "debian:12"}, **fields})
    assert refusal.value.field == field
