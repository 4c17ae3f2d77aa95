"""What the machine that an image is meant for does to its recipe."""

from __future__ import annotations

from typing import Any

from .microarchitectures import microarchitectures
from .recipe_shell import quote
from .spec_machine import family_of

MPI_APT = {"openmpi": ["libopenmpi-dev", "openmpi-bin"], "mpich": ["libmpich-dev", "mpich"]}

REQUIRE_FAMILY = """\
    [ "$(uname -m)" = {family} ] ||
        refuse machine_mismatch "The image is for {family}, and the build node is $(uname -m): nothing is built across platforms."
"""

REQUIRE_MPI = """\
    found=$(dpkg-query -W -f '${{Version}}' {package} | sed 's/^[0-9]*://')
    case "$found" in
        {version} | {version}[.-]*) ;;
        *) refuse machine_mismatch "The spec asks for {name} {version}, and apt offers only $found." ;;
    esac
"""


def apt_packages(spec: dict[str, Any]) -> list[str]:
    """The Debian packages to install: the spec's own, and MPI's where neither conda nor Spack brings it."""
    mpi = spec["machine"].get("mpi")
    if not mpi or spec["conda"] or spec["spack"]:
        return list(spec["apt"])
    return [*spec["apt"], *MPI_APT[mpi["implementation"]]]


def conda_packages(spec: dict[str, Any]) -> list[str]:
    """The conda packages to install, with MPI where the spec has conda packages at all."""
    mpi = spec["machine"].get("mpi")
    if not mpi or not spec["conda"] or spec["spack"]:
        return list(spec["conda"])
    version = f"={mpi['version']}" if "version" in mpi else ""
    return [*spec["conda"], f"{mpi['implementation']}{version}"]


def machine_text(spec: dict[str, Any]) -> str:
    """The beginning of ``%post`` for a machine: refuse another one, then tell compilers and conda of it."""
    machine = spec["machine"]
    lines = []
    family = family_of(machine)
    if family:
        lines.append(REQUIRE_FAMILY.format(family=family))
    name = machine.get("microarchitecture")
    flags = microarchitectures()[name].gcc_flags if name else ""
    if flags:
        lines.append(
            "".join(f"    export {v}={quote(f'-O2 {flags}')}\n" for v in ("CFLAGS", "CXXFLAGS", "FFLAGS"))
        )  # fmt: skip
    if machine or spec["conda"] or spec["payload"].get("install"):
        # what the build node happens to have must not decide what the image holds
        cuda = machine["gpu"]["version"] if machine.get("gpu", {}).get("kind") == "cuda" else ""
        lines.append(f"    export CONDA_OVERRIDE_CUDA={quote(cuda)}\n")
        level = quote(name) if name else '"$(uname -m)"'
        lines.append(f"    export CONDA_OVERRIDE_ARCHSPEC={level}\n")
    return "".join(lines)


def mpi_check_text(spec: dict[str, Any]) -> str:
    """After apt: refuse another MPI than the spec's, since Debian offers only one."""
    mpi = spec["machine"].get("mpi", {})
    if "version" not in mpi or apt_packages(spec) == spec["apt"]:
        return ""
    return REQUIRE_MPI.format(
        package=MPI_APT[mpi["implementation"]][0],
        name=mpi["implementation"],
        version=mpi["version"],
    )
