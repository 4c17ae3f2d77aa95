"""Images for a machine that the spec describes."""

from __future__ import annotations

import os

from .conftest import PLAIN, LocalGlobus

OWN_FAMILY = os.uname().machine


def test_an_image_for_another_machine_is_refused_before_it_is_built(globus: LocalGlobus) -> None:
    foreign = "neoverse_v1" if OWN_FAMILY == "x86_64" else "zen3"
    spec = {"name": "foreign", **PLAIN, "machine": {"microarchitecture": foreign}}
    refused = globus.build(spec)
    assert refused.document["failure"]["code"] == "machine_mismatch"
    assert "nothing is built across platforms" in refused.document["failure"]["sentence"]
    assert refused.document["failure"]["failed_step"] == "build_image"


def test_mpi_comes_in_the_version_that_was_asked_for_and_runs(globus: LocalGlobus) -> None:
    machine = {
        "microarchitecture": OWN_FAMILY,
        "mpi": {"implementation": "openmpi", "version": "4"},
    }
    spec = {"name": "mpi-image", **PLAIN, "machine": machine}
    container = globus.built({**spec, "commands": ['echo "$CFLAGS" > /etc/cflags']})
    assert "4." in globus.inside(container, "mpiexec", "--version")
    assert "-O2 -m" in globus.inside(container, "cat", "/etc/cflags")
    shown = globus.cli("containers", "show", container["container_id"], "--json").document
    assert (
        shown["record"]["machine"] == f"{OWN_FAMILY}; microarchitecture {OWN_FAMILY}; mpi openmpi 4"
    )

    wrong = {**machine, "mpi": {"implementation": "openmpi", "version": "9"}}
    refused = globus.build({**spec, "machine": wrong})
    assert refused.document["failure"]["code"] == "machine_mismatch"
    assert "asks for openmpi 9, and apt offers only" in refused.document["failure"]["sentence"]
