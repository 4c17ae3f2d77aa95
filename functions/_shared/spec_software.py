"""What a spec says of software: Debian, Python, conda and Spack packages, as lists or as the files people have."""

from __future__ import annotations

import re
from typing import Any

from .environment_yaml import MAX_ENVIRONMENT_CHARS, read_environment
from .grammars import (
    APT,
    CONDA,
    CONDA_CHANNEL,
    SPACK_COMPILER,
    SPACK_SPEC,
    https_host,
    split_image_reference,
)
from .microarchitectures import is_microarchitecture
from .requirements_file import (
    MAX_REQUIREMENTS_CHARS,
    index_of,
    read_requirements,
    requirement_line,
    requirement_of,
)
from .spec_words import SpecRefused, each_of, line_of, matching, object_of, shown, text_of

MOST_PACKAGES = 500
MOST_CHANNELS = 16
DEFAULT_CHANNELS = ["conda-forge"]
SPACK_BUILDER = "spack/ubuntu-jammy:0.23.0"


def apt_of(value: Any, field: str) -> str:
    if isinstance(value, str) and " " in value and all(map(APT.fullmatch, value.split())):
        raise SpecRefused(
            field,
            f"'{field}' must be one Debian package, not {shown(value)}; give each an entry of its own.",
        )
    return matching(value, field, APT, 256, "a Debian package such as git or git=1:2.39.5-0")


def conda_of(value: Any, field: str) -> str:
    return matching(value, field, CONDA, 256, "a conda match spec such as samtools>=1.19")


def channel_of(value: Any, field: str) -> str:
    text = line_of(value, field, 512)
    host = https_host(text)
    # packages that come over plain http could be exchanged on the way; this node itself is not on the way
    if CONDA_CHANNEL.fullmatch(text) or (
        host and (text.startswith("https:") or host in ("127.0.0.1", "localhost"))
    ):
        return text
    raise SpecRefused(
        field, f"'{field}' must be a channel name or an https address, not {shown(text)}."
    )


def check_software(full: dict[str, Any]) -> dict[str, Any]:
    """The package fields of a spec. Whole files become the lists that they stand for.

    So ``pip_requirements`` and ``conda_environment`` are empty afterwards, and nothing later knows of them.
    """
    checked: dict[str, Any] = {
        "apt": each_of(full["apt"], "apt", apt_of),
        "pip": each_of(full["pip"], "pip", requirement_of),
        "pip_requirements": "",
        "pip_extra_index_urls": each_of(
            full["pip_extra_index_urls"], "pip_extra_index_urls", index_of, 8
        ),
        "conda": each_of(full["conda"], "conda", conda_of),
        "conda_channels": each_of(
            full["conda_channels"], "conda_channels", channel_of, MOST_CHANNELS
        ),
        "conda_environment": "",
        "spack": _check_spack(full["spack"]),
    }
    if not checked["conda_channels"]:
        raise SpecRefused("conda_channels", "'conda_channels' must name at least one channel.")
    text = text_of(full["pip_requirements"], "pip_requirements", MAX_REQUIREMENTS_CHARS)
    _take_requirements(checked, text)
    text = text_of(full["conda_environment"], "conda_environment", MAX_ENVIRONMENT_CHARS)
    if text.strip():
        take_environment(checked, text, "conda_environment")
    for field, most in (("pip", MOST_PACKAGES), ("conda", MOST_PACKAGES), ("pip_extra_index_urls", 8)):  # fmt: skip
        if len(checked[field]) > most:
            raise SpecRefused(
                field,
                f"'{field}' has {len(checked[field])} entries with those of the files; "
                f"no more than {most} fit.",
            )
    return checked


def _take_requirements(checked: dict[str, Any], text: str) -> None:
    for field, kind, value in read_requirements(text, "pip_requirements"):
        if kind in ("include", "project"):
            raise _needs_payload(field)
        add_to(checked["pip" if kind == "requirement" else "pip_extra_index_urls"], value)


def take_environment(checked: dict[str, Any], text: str, name: str) -> list[str]:
    """Add what an environment.yml asks for to the lists; returns its pip list's files and folders."""
    environment = read_environment(text, name)
    channels = [
        channel_of(channel, field)
        for field, channel in environment.channels
        if channel != "nodefaults"
    ]
    if channels and checked["conda_channels"] == DEFAULT_CHANNELS:
        checked["conda_channels"] = []
    for channel in channels:
        add_to(checked["conda_channels"], channel)
    if len(checked["conda_channels"]) > MOST_CHANNELS:
        raise SpecRefused(name, f"'{name}' and the spec have more than {MOST_CHANNELS} channels.")
    for field, item in environment.conda:
        add_to(checked["conda"], conda_of(item, field))
    others = []
    for field, item in environment.pip:
        _, kind, value = requirement_line(item, field)
        if kind == "requirement":
            add_to(checked["pip"], value)
        elif kind == "index":
            add_to(checked["pip_extra_index_urls"], value)
        elif name == "conda_environment":
            raise _needs_payload(field)
        else:
            others.append(value)
    return others


def _needs_payload(field: str) -> SpecRefused:
    return SpecRefused(
        field, f"'{field}' names a file or folder, which only a payload with 'payload.install' has."
    )


def add_to(items: list[str], item: str) -> None:
    if item not in items:
        items.append(item)


def brings_python(spec: dict[str, Any]) -> bool:
    """Whether the conda packages name Python itself, so that the base image's does not matter."""
    return any(re.match(r"(.*::)?python($|[ =<>!~\[])", item) for item in spec["conda"])


def _check_spack(value: Any) -> dict[str, Any]:
    spack = object_of(value, "spack", ("specs", "compiler", "target", "builder"))
    checked: dict[str, Any] = {}
    if spack.get("specs") is not None:
        wanted = "a Spack spec such as hdf5@1.14+mpi"
        checked["specs"] = each_of(
            spack["specs"],
            "spack.specs",
            lambda item, field: matching(item, field, SPACK_SPEC, 256, wanted),
            200,
        )
    if not checked.get("specs"):
        if any(spack.get(key) is not None for key in ("compiler", "target", "builder")):
            raise SpecRefused(
                "spack.specs", "'spack.specs' is missing; give for instance [\"hdf5\"]."
            )
        return {}
    if spack.get("compiler") is not None:
        checked["compiler"] = matching(
            spack["compiler"], "spack.compiler", SPACK_COMPILER, 64, "a compiler such as gcc@12"
        )
    if spack.get("target") is not None:
        checked["target"] = line_of(spack["target"], "spack.target", 64)
        if not is_microarchitecture(checked["target"]):
            raise SpecRefused(
                "spack.target",
                "'spack.target' must be a microarchitecture such as x86_64_v3 or zen3, "
                f"not {shown(checked['target'])}.",
            )
    builder = spack.get("builder")
    if builder is not None:
        checked["builder"] = line_of(builder, "spack.builder", 512)
        if not split_image_reference(checked["builder"]):
            raise SpecRefused(
                "spack.builder",
                f"'spack.builder' must be an image with Spack such as {SPACK_BUILDER}, "
                f"not {shown(builder)}.",
            )
    return checked
