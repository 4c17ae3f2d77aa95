"""Whether this node is the machine that an image is meant for."""

from __future__ import annotations

import platform
from typing import Any

from .microarchitectures import CPUINFO, newest_of, processor_of, why_not
from .results import StepFailed
from .spec_machine import family_of, machine_words


def planned_machine(machine: dict[str, Any], architecture: str) -> str:
    """The machine as a plan and a build's identity name it: ``x86_64``, then what the spec adds."""
    return "; ".join([architecture, *(f"{k} {v}" for k, v in machine_words(machine).items())])


def require_machine(machine: dict[str, Any], engine: str) -> str:
    """Raise :class:`StepFailed` unless images for ``machine`` can be built and run here.

    ``engine`` is what the container engine says of its version. Returns the node's own microarchitecture.
    """
    with open(CPUINFO, encoding="utf-8", errors="replace") as stream:
        processor = processor_of(stream.read(), platform.machine())
    family = family_of(machine)
    if family and family != processor.family:
        raise StepFailed(
            "machine_mismatch",
            f"The image is for {family}, and this node is {processor.family}: nothing is built across platforms.",
            "Take a build endpoint of that platform, or another 'machine.platform'.",
        )
    name = machine.get("microarchitecture")
    reason = why_not(processor, name) if name else ""
    if reason:
        raise StepFailed(
            "machine_mismatch",
            f"Programs for {name} do not run here: {reason}.",
            "Take a build endpoint whose nodes are at least that new, or an older 'machine.microarchitecture'.",
        )
    wanted = machine.get("container_engine")
    if wanted and not engine.lower().startswith(wanted):
        raise StepFailed(
            "machine_mismatch",
            f"'machine.container_engine' asks for {wanted}, and this endpoint builds with {engine}.",
            "Leave it out, or take another build endpoint.",
        )
    return newest_of(processor)
