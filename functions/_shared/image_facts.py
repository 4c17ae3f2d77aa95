"""What an image's own shell says of it: arguments, places, architecture, locale, Debian packages.

One start of the image answers all of it. The program needs nothing but a POSIX shell; what an image lacks
beyond that (``od``, ``dpkg``) leaves its fact out.
"""

from __future__ import annotations

import re
from typing import Any

from .grammars import SHA256
from .results import StepFailed, last_bytes, shorten

# Arguments that a careless runscript would split, expand or drop.
TRICKY_ARGUMENTS = ["plain", "two words", 'it\'s "quoted"', "$HOME *", ""]

OWN_PLACE = "/opt/cib"  # where the recipe keeps what it installs
# Arguments: how many to print, those, then places such as d:/scratch (a folder) or f:/etc/motd (anything).
FACTS_SOURCE = r"""
count=$1
shift
while [ "$count" -gt 0 ]; do
    printf '<%s>\n' "$1"
    shift
    count=$((count - 1))
done
for place in "$@"; do
    path=${place#?:}
    case $place in
        d:*) [ -d "$path" ] || printf 'missing=%s\n' "$place" ;;
        *) [ -e "$path" ] || [ -L "$path" ] || printf 'missing=%s\n' "$place" ;;
    esac
done
printf 'locale=%s\n' "${LC_ALL:-${LC_CTYPE:-${LANG:-}}}"
printf 'nousersite=%s\n' "${PYTHONNOUSERSITE:-}"
printf 'machine=%s\n' "$(uname -m 2> /dev/null)"
printf 'elf=%s\n' "$(od -An -v -tx1 -N20 /bin/sh 2> /dev/null | tr -d ' \n')"
if command -v dpkg-query > /dev/null 2>&1; then
    # an ordinary user may not take dpkg's lock, which it asks for once it has found something
    dpkg --audit 2> /dev/null | sed 's/^/audit=/'
    dpkg-query -W -f 'debian=${Package} ${Version} ${Architecture} ${db:Status-Status}\n'
    [ ! -r /opt/cib/debian.lock ] || sed 's/^/deb=/' /opt/cib/debian.lock
fi
echo end=
"""

# e_machine in an ELF header, as the bytes stand there -> uname -m (the byte order is the architecture's own)
ELF_MACHINES = {
    "0300": "i386",
    "3e00": "x86_64",
    "2800": "arm",
    "b700": "aarch64",
    "1500": "ppc64le",
    "0016": "s390x",
    "f300": "riscv64",
}
ARCHITECTURE_FAMILIES = {"i386": "i386", "i486": "i386", "i586": "i386", "i686": "i386"}
HALF_INSTALLED = frozenset(
    {"half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}
)
DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
DEBIAN_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~-]*")
DEBIAN_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]*")


class ImageFacts:
    """What the shell said. ``debian`` is None where the image has no dpkg; an entry's ``sha256`` is None where
    apt did not know the package's file any more.
    """

    def __init__(self, lines: list[str]) -> None:
        self.missing: list[str] = []
        self.audit: list[str] = []
        self.locale = self.nousersite = self.machine = self.architecture = ""
        self.debian: list[dict[str, Any]] | None = None
        self.is_whole = False
        hashes: dict[tuple[str, str, str], str] = {}
        for line in lines:
            key, separator, value = line.partition("=")
            if not separator:
                continue
            if key == "missing":
                self.missing.append(value)
            elif key == "audit":
                self.audit.append(value)
            elif key == "elf" and value.startswith("7f454c46"):
                self.architecture = ELF_MACHINES.get(value[36:40], "")
            elif key == "debian":
                self.debian = [*(self.debian or ()), *_debian_entry(value)]
                self.audit += _half_installed(value)
            elif key == "deb":
                hashes.update(_deb_hash(value))
            elif key in ("locale", "nousersite", "machine"):
                setattr(self, key, shorten(value, 80))
            elif key == "end":
                self.is_whole = True
        for entry in self.debian or ():
            entry["sha256"] = hashes.get((entry["name"], entry["version"], entry["architecture"]))


def _debian_entry(text: str) -> list[dict[str, Any]]:
    words = text.split(" ")
    if len(words) != 4 or words[3] != "installed":
        return []
    name, version, architecture = words[:3]
    if not (
        DEBIAN_NAME.fullmatch(name)
        and DEBIAN_VERSION.fullmatch(version)
        and DEBIAN_ARCHITECTURE.fullmatch(architecture)
    ):
        return []
    return [{"name": name, "version": version, "architecture": architecture, "sha256": None}]


def _half_installed(text: str) -> list[str]:
    name, status = text.partition(" ")[0], text.rpartition(" ")[2]
    return [f"{shorten(name, 80)} is {status}"] if status in HALF_INSTALLED else []


def _deb_hash(text: str) -> dict[tuple[str, str, str], str]:
    words = text.split(" ")
    if len(words) != 4 or not SHA256.fullmatch(words[3]):
        return {}
    return {(words[0], words[1], words[2]): words[3]}


def facts_arguments(spec: dict[str, Any]) -> list[str]:
    """What is passed behind ``/bin/sh -c FACTS_SOURCE sh``."""
    places = [f"d:{mount}" for mount in spec["mounts"]]
    places += [f"f:{path}" for path in spec["verify"].get("files") or []]
    return [str(len(TRICKY_ARGUMENTS)), *TRICKY_ARGUMENTS, *places]


def read_facts(status: int, output: str, errors: str) -> ImageFacts:
    """The facts in what the program printed.

    Raises :class:`StepFailed` where the image did not start, or did not do with its arguments what a Compute
    worker relies on: it is started as ``run IMAGE command arguments…``.
    """
    lines = output.split("\n")
    echoed = [f"<{argument}>" for argument in TRICKY_ARGUMENTS]
    if status == 0 and lines[: len(echoed)] == echoed:
        facts = ImageFacts(lines[len(echoed) :])
        if facts.is_whole:
            return facts
    if "FATAL" in errors:
        fatal = next(line for line in errors.splitlines() if "FATAL" in line)
        raise StepFailed(
            "image_unreadable",
            f"The image does not start here: {shorten(fatal.split('FATAL:')[-1], 300)}.",
            "Ask the endpoint's administrator whether the node can mount images.",
            log_tail=errors,
        )
    raise StepFailed(
        "verify_arguments",
        "The image does not run the command it is given with its arguments unchanged.",
        "A command in 'commands' may have replaced the image's runscript or /bin/sh.",
        log_tail=last_bytes(output + errors, 2000),
    )


def judge_facts(facts: ImageFacts, spec: dict[str, Any], machine: str) -> None:
    """Raise :class:`StepFailed` for the first fact that an image must not have. ``machine`` is what it was
    built for, as ``uname -m`` says it.
    """
    for place in facts.missing:
        kind, _, path = place.partition(":")
        field = "mounts" if kind == "d" else "verify.files"
        raise StepFailed(
            "verify_file_missing",
            f"{shorten(path, 200)}, which '{field}' names, is not in the image.",
            "A command in 'commands' may have removed it."
            if kind == "d"
            else "Correct the path, or what makes the file.",
        )
    wanted = ARCHITECTURE_FAMILIES.get(machine, machine)
    if facts.architecture and facts.architecture != wanted:
        raise StepFailed(
            "verify_architecture",
            f"The image's programs are for {facts.architecture}, and it was to be for {machine}.",
            f"Take a base image for {machine}.",
        )
    if facts.audit:
        raise StepFailed(
            "verify_inconsistent",
            f"Debian packages are not completely installed: {shorten(' '.join(facts.audit), 300)}",
            "A command in 'commands' may have been interrupted or may have hidden apt-get's failure.",
            log_tail="\n".join(facts.audit),
        )
    own = spec["environment"].keys()
    if "utf" not in facts.locale.lower() and not own & {"LC_ALL", "LC_CTYPE", "LANG"}:
        raise StepFailed(
            "verify_environment",
            f"The image does not run in a UTF-8 locale but in '{facts.locale or 'POSIX'}'.",
            "A command in 'commands' may have changed the image's environment scripts.",
        )
