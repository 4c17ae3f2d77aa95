"""The recipe: an Apptainer definition file, made from a checked spec and nothing else.

User text appears only as shell-quoted words inside sections that this module opens. Every fact about
definition files used here is from apptainer 1.4's own parser: a line whose first word begins with ``%`` ends
a section, ``bootstrap:`` at a line's beginning starts a stage, ``{{ word }}`` is a build argument, and a
section must stay below 64 KiB.
"""

from __future__ import annotations

import re
import shlex
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
    if [ -x {prefix}/conda/bin/python ]; then
        env_python={prefix}/conda/bin/python
    else
        env_python={prefix}/venv/bin/python
        if ! "$python" -c 'import venv, ensurepip' 2> /dev/null; then
            if [ ! -x {exchange}/tools/uv ]; then apt_install python3-venv; fi
        fi
        if "$python" -c 'import venv, ensurepip' 2> /dev/null; then
            "$python" -m venv --system-site-packages {prefix}/venv
        else
            {exchange}/tools/uv venv -q --system-site-packages --python "$python" {prefix}/venv
        fi
    fi
"""

PIP_INSTALL = """\
    use_uv() {{
        [ -x {exchange}/tools/uv ] && {exchange}/tools/uv --version > /dev/null 2>&1 || return 1
        [ "$env_python" = {prefix}/venv/bin/python ] || return 0
        "$env_python" -c 'import importlib.metadata as m, sys; sys.exit(any(d.name.lower() not in ("pip", "setuptools", "wheel") for d in m.distributions()))'
    }}
    if use_uv; then
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
        "%post\n" + _post_section(spec, versions),
        _environment_section(spec),
        RUNSCRIPT,
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
    lines = ["%labels", f"    cib-flows.name {spec['name']}"]
    if spec["description"]:
        # a label is read to the end of its line; only a build argument could be seen in it
        description = re.sub(r"\{(?=\{)", "{ ", spec["description"])
        lines.append(f"    cib-flows.description {description}")
    return "\n".join(lines) + "\n"


def _post_section(spec: dict[str, Any], versions: dict[str, str] | None) -> str:
    names = {"prefix": PREFIX, "exchange": EXCHANGE}
    wants_worker = spec["worker"] != "none"
    requirements = requirements_of(spec, versions)
    parts = [PREAMBLE.format(**names)]
    parts += [f"    mkdir -p {quote(mount)}\n" for mount in spec["mounts"]]
    wants_python = bool(requirements) or wants_worker
    if wants_python and not brings_python(spec):
        parts.append(FIND_PYTHON.format(candidate=CHECK_CANDIDATE if wants_worker else ""))
        if wants_worker:
            parts.append(CHECK_PYTHON)
    elif wants_python:
        parts.append("    python=\n")
    if spec["apt"]:
        parts.append(f"    phase apt\n    apt_install {_words(spec['apt'])}\n")
    if wants_payload(spec):
        parts.append(PAYLOAD.format(destination=quote(spec["payload"]["destination"]), **names))
    if wants_python or spec["conda"]:
        parts.append(f"    mkdir -p {PREFIX}\n")
    if spec["conda"]:
        channels = " ".join(f"-c {quote(channel)}" for channel in spec["conda_channels"])
        parts.append("    phase conda\n")
        parts.append(CONDA_INSTALL.format(specs=_words(spec["conda"]), channels=channels, **names))
    if wants_python:
        parts.append("    phase pip\n")
        parts.append(MAKE_ENVIRONMENT.format(**names))
        parts.append(
            f"    printf '%s\\n' \\\n        {_words(requirements)} > {PREFIX}/requirements.txt\n"
        )
        if wants_worker and not versions:
            parts.append(f"    # the build endpoint adds {PINNED_BY_ENDPOINT}\n")
        parts.append(PIP_INSTALL.format(**names))
    if spec["commands"]:
        parts.append(COMMANDS.format(**names))
        parts.append("".join(f"    {line}\n" for line in _exports(spec)))
        parts.append("".join(f"    run {quote(command)}\n" for command in spec["commands"]))
    parts.append("    rm -rf /var/lib/apt/lists/* /etc/apt/apt.conf.d/99cib-flows\n")
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
