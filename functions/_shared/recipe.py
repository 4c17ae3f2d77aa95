"""The recipe: an Apptainer definition file, made from a checked spec and nothing else.

User text appears only as shell-quoted words inside sections that this module opens. Every fact about
definition files used here is from apptainer 1.4's own parser: a line whose first word begins with ``%`` ends
a section, ``bootstrap:`` at a line's beginning starts a stage, ``{{ word }}`` is a build argument, and a
section must stay below 64 KiB.
"""

from __future__ import annotations

import re
from textwrap import indent
from typing import Any

from .recipe_machine import apt_packages, conda_packages, machine_text, mpi_check_text
from .recipe_shell import (
    ADD_INDEX,
    ASKED_APT,
    ASKED_CHANNELS,
    ASKED_CONDA,
    ASKED_INDEXES,
    ASKED_PIP,
    CHECK_CANDIDATE,
    CHECK_PYTHON,
    COMMANDS,
    CONDA_INSTALL,
    EXCHANGE,
    FIND_PYTHON,
    INSTALL_PAYLOAD,
    MAKE_ENVIRONMENT,
    PAYLOAD,
    PIP_INSTALL,
    PREAMBLE,
    PREFIX,
    PYTHON_HELPERS,
    quote,
    words,
)
from .recipe_spack import SPACK_VIEW, spack_arrived, spack_files, spack_stage
from .results import StepFailed
from .spec_machine import machine_words
from .spec_software import DEFAULT_CHANNELS, brings_python

MAX_SECTION_BYTES = 60 * 1024  # bufio.Scanner's limit is 64 KiB for a section and the line after it
ENDPOINT_PACKAGE = "globus-compute-endpoint"
PINNED_BY_ENDPOINT = f"{ENDPOINT_PACKAGE} and parsl, at the build endpoint's own versions"
# Docker's own Debian images keep none of it; others would carry the downloads and 70 MB of tables along.
APT_CACHES = "/var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb"
NAMES = {"prefix": PREFIX, "exchange": EXCHANGE}


def requirements_of(spec: dict[str, Any], versions: dict[str, str] | None) -> list[str]:
    """The pip requirements of an image: the user's, then the worker's exact pins.

    ``versions`` maps distribution names to the build endpoint's versions. ``parsl`` is pinned to the very
    release on the host, because Parsl has no wire protocol that is stable from one release to the next.
    """
    requirements: list[str] = list(spec["pip"])
    if spec["worker"] != "none" and versions:
        requirements += [f"{name}=={version}" for name, version in sorted(versions.items())]
    return requirements


def render_text(
    spec: dict[str, Any],
    versions: dict[str, str] | None,
    base: str | None = None,
    *,
    builder: str | None = None,
    goes_on: bool = False,
) -> str:
    """The definition file's text for a checked spec.

    ``base`` replaces the spec's own reference where a site mirrors or a digest pins it, and ``builder`` that of
    the image with Spack. A recipe that ``goes_on`` has a kept stage as its base, with Spack's work in it. Raises
    :class:`StepFailed` when a section would be longer than Apptainer reads.
    """
    reference = base or spec["base"]["image"]
    compiles = bool(spec["spack"]) and not goes_on
    header = f"Bootstrap: {spec['base']['bootstrap']}\nFrom: {reference}\n"
    sections = [
        *([spack_stage(spec, builder)] if compiles else []),
        header + ("Stage: final\n" if compiles else ""),
        *([spack_files()] if compiles else []),
        _labels_section(spec),
        "%post\n" + environment_text(spec, versions) + _later_text(spec),
        _environment_section(spec),
        _runscript_section(spec),
        _help_section(spec),
    ]
    for section in sections:
        if len(section.encode("utf-8")) > MAX_SECTION_BYTES:
            raise StepFailed(
                "recipe_too_large",
                f"The recipe's {section.split()[0]} section would be {len(section.encode())} bytes long, more "
                f"than the {MAX_SECTION_BYTES} that Apptainer reads.",
                "Move long commands or lists into a script or requirements file in the payload.",
            )
    return "\n".join(sections)


def _labels_section(spec: dict[str, Any]) -> str:
    machine = {f"cib-flows.machine.{k}": v for k, v in machine_words(spec["machine"]).items()}
    labels = {"cib-flows.name": spec["name"], **machine, **dict(sorted(spec["labels"].items()))}
    return "%labels\n" + "".join(f"    {key} {text}\n" for key, text in labels.items())


def _help_section(spec: dict[str, Any]) -> str:
    """What ``apptainer run-help`` says. The line begins with our word, and no build argument stands in it."""
    description = re.sub(r"\{(?=\{)", "{ ", spec["description"] or "no description was given")
    return f"%help\n    Image {spec['name']}: {description}\n"


def _runscript_section(spec: dict[str, Any]) -> str:
    if spec["runscript"]:
        command = " ".join(quote(word) for word in spec["runscript"])
        return f'%runscript\n    exec {command} "$@"\n'
    start = ""
    if spec["payload"].get("install"):
        start = f'    if [ -x {PREFIX}/start ]; then set -- {PREFIX}/start "$@"; fi\n'
    return f"""\
%runscript
    if [ "$#" -eq 0 ]; then set -- /bin/sh; fi
{start}    exec "$@"
"""


def wants_python(spec: dict[str, Any], versions: dict[str, str] | None) -> bool:
    """Whether the image gets a Python environment of ours."""
    return bool(requirements_of(spec, versions)) or spec["worker"] != "none" or asks_payload(spec)


def asks_payload(spec: dict[str, Any]) -> bool:
    """Whether what the payload's own files ask for is to be installed."""
    return bool(spec["payload"].get("install"))


def environment_text(spec: dict[str, Any], versions: dict[str, str] | None) -> str:
    """The part of ``%post`` that makes the environment: everything before the payload and the commands."""
    wants_worker = spec["worker"] != "none"
    with_python = wants_python(spec, versions)
    parts = [PREAMBLE.format(**NAMES), machine_text(spec)]
    if spec["locked"]:
        parts.append(f"    # {EXCHANGE}/locked holds what to install: the lock {spec['locked']}\n")
    # conda, which the payload may ask for, may bring a newer one
    unless = f" [ -e {EXCHANGE}/asked/brings-python ] ||" if asks_payload(spec) else ""
    if with_python and not brings_python(spec):
        parts.append(FIND_PYTHON.format(candidate=CHECK_CANDIDATE if wants_worker else ""))
        if wants_worker:
            parts.append(CHECK_PYTHON.format(unless=unless))
    elif with_python:
        parts.append("    python=\n")
    parts.append(_apt_text(spec))
    if with_python or spec["conda"] or spec["spack"]:
        parts.append(f"    mkdir -p {PREFIX}\n")
    if spec["spack"]:
        parts.append(spack_arrived(spec))
    parts.append(_conda_text(spec))
    if with_python:
        parts.append(PYTHON_HELPERS.format(**NAMES) + _indexes_text(spec))
        parts.append(_block("pip", _pip_text(spec, versions)))
    parts.append("    record_debs\n")
    parts.append(f"    rm -rf {APT_CACHES} /etc/apt/apt.conf.d/99cib-flows\n")
    return "".join(parts)


def _apt_text(spec: dict[str, Any]) -> str:
    packages = apt_packages(spec)
    steps = f"    apt_install {words(packages)}\n{mpi_check_text(spec)}" if packages else ""
    if asks_payload(spec):
        steps += ASKED_APT.format(**NAMES)
    return _block("apt", steps) if steps else ""


def _conda_text(spec: dict[str, Any]) -> str:
    packages = conda_packages(spec)
    install = CONDA_INSTALL.format(**NAMES)
    channels = " ".join(f"-c {quote(channel)}" for channel in spec["conda_channels"])
    if not asks_payload(spec):
        asked = f"    set -- {channels} {words(packages)}\n"
        return _block("conda", asked + install) if packages else ""
    # as with 'conda_environment': what the file names takes the place of the default
    is_default = spec["conda_channels"] == DEFAULT_CHANNELS
    steps = f"    set --{'' if is_default else ' ' + channels}\n{ASKED_CHANNELS.format(**NAMES)}"
    if is_default:
        steps += f'    [ "$#" -gt 0 ] || set -- {channels}\n'
    if packages:
        steps += f'    set -- "$@" {words(packages)}\n'
    steps += ASKED_CONDA.format(**NAMES)
    if not packages:
        install = f"    if [ -s {EXCHANGE}/asked/conda ]; then\n{indent(install, '    ')}    fi\n"
    return _block("conda", steps + install)


def _indexes_text(spec: dict[str, Any]) -> str:
    added = "".join(f"    add_index {quote(url)}\n" for url in spec["pip_extra_index_urls"])
    if asks_payload(spec):
        added += ASKED_INDEXES.format(**NAMES)
    return ADD_INDEX.format(**NAMES) + added if added else ""


def _pip_text(spec: dict[str, Any], versions: dict[str, str] | None) -> str:
    requirements = words(requirements_of(spec, versions))
    steps = MAKE_ENVIRONMENT.format(**NAMES)
    steps += f"    printf '%s\\n' \\\n        {requirements} > {PREFIX}/requirements.txt\n"
    if asks_payload(spec):
        steps += ASKED_PIP.format(**NAMES)
    if spec["worker"] != "none" and not versions:
        steps += f"    # the build endpoint adds {PINNED_BY_ENDPOINT}\n"
    return steps + PIP_INSTALL.format(**NAMES)


def _block(phase: str, steps: str) -> str:
    """Steps that a build skips when it goes on from a stage that has them."""
    return f"    if todo {phase}; then\n        phase {phase}\n{indent(steps, '    ')}    fi\n"


def has_later_steps(spec: dict[str, Any]) -> bool:
    """Whether something follows the environment that another spec's image must not start from."""
    return wants_payload(spec) or any(spec[field] for field in LATER_FIELDS)


# What follows the environment, beside the payload.
LATER_FIELDS = ("files", "environment", "labels", "mounts", "commands", "runscript")


def environment_only(spec: dict[str, Any]) -> dict[str, Any]:
    """``spec`` without what follows the environment: what a stage is made from."""
    empty = {field: type(spec[field])() for field in LATER_FIELDS}
    kept = {key: value for key, value in spec["payload"].items() if key == "install"}
    return {**spec, **empty, "payload": kept, "payload_collection": None}


def _later_text(spec: dict[str, Any]) -> str:
    parts = [f"    mkdir -p {quote(mount)}\n" for mount in spec["mounts"]]
    runs_programs = bool(spec["commands"])
    if wants_payload(spec):
        destination = quote(spec["payload"]["destination"])
        parts.append(PAYLOAD.format(destination=destination, **NAMES))
        runs_programs = runs_programs or asks_payload(spec)
    parts += [_file_text(file) for file in spec["files"]]
    if runs_programs:
        parts.append("".join(f"    {line}\n" for line in _exports(spec)))
    if wants_payload(spec) and asks_payload(spec):
        parts.append(INSTALL_PAYLOAD.format(destination=destination, **NAMES))
    if spec["commands"]:
        parts.append(COMMANDS.format(**NAMES))
        parts.append("".join(f"    run {quote(command)}\n" for command in spec["commands"]))
    if runs_programs:
        parts.append(f"    record_debs\n    rm -rf {APT_CACHES}\n")
    if spec["locked"]:
        parts.append("    rm -f /etc/apt/preferences.d/99cib-flows\n")
    parts.append("    phase image\n")
    return "".join(parts)


def _file_text(file: dict[str, Any]) -> str:
    """A file written line by line, so that the recipe shows what it holds."""
    path = quote(file["path"])
    *lines, last = file["content"].split("\n")
    writes = []
    if lines:
        writes.append(f"        printf '%s\\n' \\\n        {words(lines)}\n")
    if last or not lines:
        writes.append(f"        printf '%s' {quote(last)}\n")
    mode = "755" if file["executable"] else "644"
    return (
        f'    mkdir -p "$(dirname {path})"\n    {{\n{"".join(writes)}    }} > {path}\n'
        f"    chmod {mode} {path}\n"
    )


def wants_payload(spec: dict[str, Any]) -> bool:
    """Whether something is to be fetched into the image."""
    return bool(spec["payload_collection"]) or any(f in spec["payload"] for f in ("url", "git"))


def _exports(spec: dict[str, Any]) -> list[str]:
    lines = []
    folders = []
    if spec["pip"] or spec["conda"] or spec["worker"] != "none" or asks_payload(spec):
        folders += [f"{PREFIX}/venv/bin", f"{PREFIX}/conda/bin"]
    if spec["spack"]:
        folders.append(f"{SPACK_VIEW}/bin")
        lines.append(f'export CMAKE_PREFIX_PATH="{SPACK_VIEW}"')
    if folders:
        lines.append(f'export PATH="{":".join(folders)}:$PATH"')
    # a package in the user's home must not shadow the image's; a POSIX locale breaks non-ASCII file names
    lines += ["export PYTHONNOUSERSITE=1", "export LC_ALL=C.UTF-8", "export LANG=C.UTF-8"]
    lines += [f"export {key}={quote(value)}" for key, value in sorted(spec["environment"].items())]
    return lines


def _environment_section(spec: dict[str, Any]) -> str:
    return "%environment\n" + "".join(f"    {line}\n" for line in _exports(spec))
