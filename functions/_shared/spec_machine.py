"""The machine that an image is meant for, as eFlows4HPC's requests describe it."""

from __future__ import annotations

import re
from typing import Any

from .microarchitectures import is_microarchitecture, microarchitectures
from .spec_words import SpecRefused, matching, object_of, shown

PLATFORMS = {
    "linux/amd64": "x86_64",
    "linux/arm64": "aarch64",
    "linux/ppc64le": "ppc64le",
    "linux/riscv64": "riscv64",
}
CONTAINER_ENGINES = ("apptainer", "singularity")
MPI_IMPLEMENTATIONS = ("openmpi", "mpich")
GPU_KINDS = ("cuda", "rocm")
SHORT_VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,3}")


def check_machine(value: Any) -> dict[str, Any]:
    """The checked ``machine`` field; empty when nothing of the machine matters."""
    machine = object_of(
        value, "machine", ("platform", "microarchitecture", "container_engine", "mpi", "gpu")
    )
    checked: dict[str, Any] = {}
    if machine.get("platform") is not None:
        checked["platform"] = _one_of(machine["platform"], "machine.platform", tuple(PLATFORMS))
    name = machine.get("microarchitecture")
    if name is not None:
        if not isinstance(name, str) or not is_microarchitecture(name):
            raise SpecRefused(
                "machine.microarchitecture",
                "'machine.microarchitecture' must be a name that archspec knows, such as x86_64_v3, "
                f"zen3 or neoverse_v1, not {shown(name)}.",
            )
        checked["microarchitecture"] = name
        family = microarchitectures()[name].family
        if "platform" in checked and PLATFORMS[checked["platform"]] != family:
            raise SpecRefused(
                "machine.microarchitecture",
                f"'machine.microarchitecture' {name} is of {family}, "
                f"which 'machine.platform' {checked['platform']} is not.",
            )
    if machine.get("container_engine") is not None:
        checked["container_engine"] = _one_of(
            machine["container_engine"], "machine.container_engine", CONTAINER_ENGINES
        )
    for part, kind, kinds in (
        ("mpi", "implementation", MPI_IMPLEMENTATIONS),
        ("gpu", "kind", GPU_KINDS),
    ):
        if machine.get(part) is not None:
            checked[part] = _versioned(machine[part], f"machine.{part}", kind, kinds)
    if "gpu" in checked and "version" not in checked["gpu"]:
        raise SpecRefused(
            "machine.gpu.version",
            "'machine.gpu.version' is missing; a GPU target is never guessed, so give for instance 12.4.",
        )
    return checked


def family_of(machine: dict[str, Any]) -> str | None:
    """What ``uname -m`` must say where the image is built and run; None when it does not matter."""
    if "platform" in machine:
        return PLATFORMS[machine["platform"]]
    if "microarchitecture" in machine:
        return microarchitectures()[machine["microarchitecture"]].family
    return None


def machine_words(machine: dict[str, Any]) -> dict[str, str]:
    """The machine as flat names and texts, for labels and for the identity of a build."""
    named: dict[str, str] = {
        key: machine[key]
        for key in ("platform", "microarchitecture", "container_engine")
        if key in machine
    }
    if "mpi" in machine:
        named["mpi"] = " ".join(machine["mpi"].values())
    if "gpu" in machine:
        named["gpu"] = " ".join(machine["gpu"].values())
    return named


def _one_of(value: Any, field: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise SpecRefused(
            field, f"'{field}' must be one of {', '.join(known)}, not {shown(value)}."
        )
    found: str = value
    return found


def _versioned(value: Any, field: str, kind: str, kinds: tuple[str, ...]) -> dict[str, str]:
    given = object_of(value, field, (kind, "version"))
    if given.get(kind) is None:
        raise SpecRefused(f"{field}.{kind}", f"'{field}.{kind}' is missing; give {kinds[0]}.")
    checked = {kind: _one_of(given[kind], f"{field}.{kind}", kinds)}
    if given.get("version") is not None:
        checked["version"] = matching(
            given["version"], f"{field}.version", SHORT_VERSION, 32, "a version such as 12.4"
        )
    return checked
