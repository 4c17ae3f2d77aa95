"""The recipe: an Apptainer definition file, made from a checked spec and nothing else.

User text appears only as shell-quoted words inside sections that this module opens. Every fact about
definition files used here is from apptainer 1.4's own parser: a line whose first word begins with ``%`` ends
a section, ``bootstrap:`` at a line's beginning starts a stage, ``{{ word }}`` is a build argument, and a
section must stay below 64 KiB.
"""

from __future__ import annotations

import re
import shlex
from textwrap import indent
from typing import Any

from .results import StepFailed
from .spec_check import brings_python

MAX_SECTION_BYTES = 60 * 1024  # bufio.Scanner's limit is 64 KiB for a section and the line after it
PREFIX = "/opt/cib"
EXCHANGE = "/mnt"  # where the build binds what must not stay in the image
ENDPOINT_PACKAGE = "globus-compute-endpoint"
PINNED_BY_ENDPOINT = f"{ENDPOINT_PACKAGE} and parsl, at the build endpoint's own versions"

PREAMBLE = """\
    set +x -eu
    umask 022
    # {exchange} holds what the build lends: tools, certificates, the payload. Nothing of it stays.
    phase() {{ echo "==> $1"; if [ -f {exchange}/lent ]; then echo "$1" > {exchange}/phase; fi; }}
    # a build that goes on from a kept stage has some phases behind it
    todo() {{ ! grep -qsx "$1" {exchange}/done; }}
    if [ -s {exchange}/done ]; then
        # the stage's own environment is in force here, and its recipe is not this image's history
        PATH=$(echo "$PATH" | sed 's#{prefix}/[a-z]*/bin:##g')
        rm -rf /.singularity.d/Singularity /.singularity.d/bootstrap_history
    fi
    refuse() {{
        printf 'REFUSED: %s\\n' "$2" >&2
        if [ -f {exchange}/lent ]; then printf '%s\\n%s\\n' "$1" "$2" > {exchange}/refusal; fi
        exit 65
    }}
    apt_install() {{
        command -v apt-get > /dev/null || refuse apt_missing 'The base image has no apt-get, so Debian packages cannot be installed.'
        export DEBIAN_FRONTEND=noninteractive
        if [ ! -f /etc/apt/apt.conf.d/99cib-flows ]; then
            # apt cannot change to its own user in a namespace that maps only one
            echo 'APT::Sandbox::User "root";' > /etc/apt/apt.conf.d/99cib-flows
            apt-get -q update
        fi
        apt-get -q install -y --no-install-recommends -- "$@"
    }}
"""

FIND_PYTHON = """\
    phase python
    python=$(command -v python3 || true)
    if [ -z "$python" ]; then
        command -v apt-get > /dev/null || refuse python_missing 'The base image has no python3 and no apt-get to install one.'
        echo 'APT::Sandbox::User "root";' > /etc/apt/apt.conf.d/99cib-flows
        apt-get -q update
{candidate}        apt_install python3 python3-venv
        python=$(command -v python3)
    fi
"""

CHECK_CANDIDATE = """\
        candidate=$(apt-cache policy python3 | sed -n 's/^ *Candidate: *//p')
        dpkg --compare-versions "$candidate" ge 3.10 ||
            refuse python_too_old "The base image has no Python, and apt offers only $candidate; Globus Compute needs 3.10 or newer."
"""

CHECK_PYTHON = """\
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        refuse python_too_old "The base image's $("$python" --version 2>&1) is too old: Globus Compute needs 3.10 or newer."
"""

# One environment for everything: conda's own Python where conda brought one, else a virtual environment that
# sees what the base image has. uv does not count what the base has when it resolves, so pip does the work there.
MAKE_ENVIRONMENT = """\
    can_use_uv() {{ [ -x {exchange}/tools/uv ] && {exchange}/tools/uv --version > /dev/null 2>&1; }}
    if [ -x {prefix}/conda/bin/python ]; then
        env_python={prefix}/conda/bin/python
    else
        env_python={prefix}/venv/bin/python
    fi
    if [ ! -x "$env_python" ] && can_use_uv; then
        {exchange}/tools/uv venv -q --seed --system-site-packages --python "$python" {prefix}/venv
    elif [ ! -x "$env_python" ]; then
        "$python" -c 'import venv, ensurepip' 2> /dev/null || apt_install python3-venv
        "$python" -m venv --system-site-packages {prefix}/venv
    fi
"""

PIP_INSTALL = """\
    base_is_bare() {{
        "$python" -c 'import importlib.metadata as m, sys; sys.exit(any(d.name.lower() not in ("pip", "setuptools", "wheel") for d in m.distributions()))'
    }}
    if can_use_uv && [ "$env_python" = {prefix}/venv/bin/python ] && base_is_bare; then
        # first which versions, then exactly those, whatever a kept stage had
        {exchange}/tools/uv pip compile -q --python "$env_python"{compile_hashes} --no-annotate --no-header {prefix}/requirements.txt -o {prefix}/requirements.lock
        {exchange}/tools/uv pip sync --python "$env_python"{sync_hashes} --compile-bytecode --link-mode copy {prefix}/requirements.lock
    elif can_use_uv && [ "$env_python" = {prefix}/conda/bin/python ]; then
        {exchange}/tools/uv pip install --python "$env_python" --break-system-packages --compile-bytecode --link-mode copy -r {prefix}/requirements.txt
    else
        "$env_python" -m pip --version > /dev/null || "$env_python" -m ensurepip
        "$env_python" -m pip install --no-cache-dir --disable-pip-version-check --no-input -r {prefix}/requirements.txt
    fi
"""

CONDA_INSTALL = """\
    set -- {channels} {specs}
    if [ -d {exchange}/tools/rattler ] && command -v python3 > /dev/null; then
        python3 {exchange}/conda_install.py --prefix {prefix}/conda "$@"
    else
        conda=$(command -v micromamba || command -v mamba || command -v conda || true)
        [ -n "$conda" ] || refuse conda_missing 'The base image has no conda, and the build endpoint lends none.'
        "$conda" create -y -q -p {prefix}/conda --override-channels "$@"
        "$conda" clean -y -q --all
    fi
"""

PAYLOAD = """\
    phase payload
    mkdir -p {destination}
    if [ -e {exchange}/payload ]; then cp -a {exchange}/payload/. {destination}/; fi
    # whoever runs the image is not the one who built it
    chmod -R go+rX {destination}
"""

COMMANDS = """\
    phase commands
    run() {{
        printf '+ %s\\n' "$1"
        /bin/sh -e -c "$1" < /dev/null || refuse command_failed "The command exited with status $?: $1"
    }}
"""

RUNSCRIPT = """\
%runscript
    if [ "$#" -eq 0 ]; then set -- /bin/sh; fi
    exec "$@"
"""


def quote(text: str) -> str:
    """One shell word for any one-line text, in which no build argument can stand."""
    return re.sub(r"\{(?=\{)", "{''", shlex.quote(text))


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
    spec: dict[str, Any], versions: dict[str, str] | None, base: str | None = None
) -> str:
    """The definition file's text for a checked spec.

    ``base`` replaces the spec's own reference where a site mirrors or a digest pins it. Raises
    :class:`StepFailed` when a section would be longer than Apptainer reads.
    """
    reference = base or spec["base"]["image"]
    sections = [
        f"Bootstrap: {spec['base']['bootstrap']}\nFrom: {reference}\n",
        _labels_section(spec),
        "%post\n" + environment_text(spec, versions) + _later_text(spec),
        _environment_section(spec),
        RUNSCRIPT,
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
    return f"%labels\n    cib-flows.name {spec['name']}\n"


def _help_section(spec: dict[str, Any]) -> str:
    """What ``apptainer run-help`` says. The line begins with our word, and no build argument stands in it."""
    description = re.sub(r"\{(?=\{)", "{ ", spec["description"] or "no description was given")
    return f"%help\n    Image {spec['name']}: {description}\n"


def environment_text(spec: dict[str, Any], versions: dict[str, str] | None) -> str:
    """The part of ``%post`` that makes the environment: everything before the payload and the commands."""
    names = {"prefix": PREFIX, "exchange": EXCHANGE}
    wants_worker = spec["worker"] != "none"
    requirements = requirements_of(spec, versions)
    parts = [PREAMBLE.format(**names)]
    wants_python = bool(requirements) or wants_worker
    if wants_python and not brings_python(spec):
        parts.append(FIND_PYTHON.format(candidate=CHECK_CANDIDATE if wants_worker else ""))
        if wants_worker:
            parts.append(CHECK_PYTHON)
    elif wants_python:
        parts.append("    python=\n")
    if spec["apt"]:
        parts.append(_block("apt", f"    apt_install {_words(spec['apt'])}\n"))
    if wants_python or spec["conda"]:
        parts.append(f"    mkdir -p {PREFIX}\n")
    if spec["conda"]:
        channels = " ".join(f"-c {quote(channel)}" for channel in spec["conda_channels"])
        install = CONDA_INSTALL.format(specs=_words(spec["conda"]), channels=channels, **names)
        parts.append(_block("conda", install))
    if wants_python:
        install = MAKE_ENVIRONMENT.format(**names)
        install += (
            f"    printf '%s\\n' \\\n        {_words(requirements)} > {PREFIX}/requirements.txt\n"
        )
        if wants_worker and not versions:
            install += f"    # the build endpoint adds {PINNED_BY_ENDPOINT}\n"
        # a git reference has no hash that could be required
        hashed = not any("git+https://" in requirement for requirement in requirements)
        install += PIP_INSTALL.format(
            compile_hashes=" --generate-hashes" if hashed else "",
            sync_hashes=" --require-hashes" if hashed else "",
            **names,
        )
        parts.append(_block("pip", install))
    parts.append("    rm -rf /var/lib/apt/lists/* /etc/apt/apt.conf.d/99cib-flows\n")
    return "".join(parts)


def _block(phase: str, steps: str) -> str:
    """Steps that a build skips when it goes on from a stage that has them."""
    return f"    if todo {phase}; then\n        phase {phase}\n{indent(steps, '    ')}    fi\n"


def has_later_steps(spec: dict[str, Any]) -> bool:
    """Whether something follows the environment that another spec's image must not start from."""
    return wants_payload(spec) or any(spec[f] for f in ("commands", "mounts", "environment"))


def _later_text(spec: dict[str, Any]) -> str:
    names = {"prefix": PREFIX, "exchange": EXCHANGE}
    parts = [f"    mkdir -p {quote(mount)}\n" for mount in spec["mounts"]]
    if wants_payload(spec):
        parts.append(PAYLOAD.format(destination=quote(spec["payload"]["destination"]), **names))
    if spec["commands"]:
        parts.append(COMMANDS.format(**names))
        parts.append("".join(f"    {line}\n" for line in _exports(spec)))
        parts.append("".join(f"    run {quote(command)}\n" for command in spec["commands"]))
        parts.append("    rm -rf /var/lib/apt/lists/*\n")
    parts.append("    phase image\n")
    return "".join(parts)


def wants_payload(spec: dict[str, Any]) -> bool:
    """Whether something is to be fetched into the image."""
    return bool(spec["payload_collection"]) or any(f in spec["payload"] for f in ("url", "git"))


def _words(items: list[str]) -> str:
    return " \\\n        ".join(quote(item) for item in items) if items else "''"


def _exports(spec: dict[str, Any]) -> list[str]:
    lines = []
    if spec["pip"] or spec["conda"] or spec["worker"] != "none":
        lines.append(f'export PATH="{PREFIX}/venv/bin:{PREFIX}/conda/bin:$PATH"')
    # a package in the user's home must not shadow the image's; a POSIX locale breaks non-ASCII file names
    lines += ["export PYTHONNOUSERSITE=1", "export LC_ALL=C.UTF-8", "export LANG=C.UTF-8"]
    lines += [f"export {key}={quote(value)}" for key, value in sorted(spec["environment"].items())]
    return lines


def _environment_section(spec: dict[str, Any]) -> str:
    return "%environment\n" + "".join(f"    {line}\n" for line in _exports(spec))
