"""Fill a site's endpoint files with what an administrator decides, and put them into an endpoint's folder.

Started by ``install_endpoint.sh``; needs nothing but Python. Doing it again changes nothing; a file that was
edited since is left alone and named.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from cib_flows.bundle import IMAGE_CHECK, image_check  # noqa: E402  # found by the line above

ENDPOINTS = REPOSITORY / "deploy_scripts" / "endpoints"
FILES = (
    "config.yaml",
    "user_config_template.yaml.j2",
    "user_config_schema.json",
    "user_environment.yaml",
    "site.json",
)
TEMPLATE = "user_config_template.yaml.j2"
# Digests of what was written, to tell edited files. The local home has a record of its own by another name.
RECORD = ".installed-site.json"
RESERVE_S = 120  # of a job, beside the build itself: its start and its own margin

PATH = r"/(?:[A-Za-z0-9._/+@~-]|\$USER\b)*[A-Za-z0-9_]"
WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
GRAMMARS = {
    "environment": PATH.replace(r"|\$USER\b", ""),
    "site-profile": PATH.replace(r"|\$USER\b", ""),
    "check-image": PATH.replace(r"|\$USER\b", ""),
    "image-root": PATH,
    "build-walltime": r"[0-9]{2}:[0-5][0-9]:[0-5][0-9]",
    "run-walltime": r"[0-9]{2}:[0-5][0-9]:[0-5][0-9]",
    "build-limit-s": r"[1-9][0-9]{2,6}",
    "filesystems": r"[A-Za-z0-9_]+(?::[A-Za-z0-9_]+)*",
}
# These stand where YAML expects a value, so that a site without accounts can say null.
BARE = ("account", "partition", "queue")
USER_PATTERN = "[A-Za-z0-9_][A-Za-z0-9._-]*"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Refused(Exception):
    """What was given cannot be installed; one sentence."""


def sites() -> list[str]:
    """The sites that can be installed; ``local`` is put in place by ``cib-flows local start``."""
    return sorted(path.parent.name for path in ENDPOINTS.glob("*/settings.json"))


def decide(site: str, given: Mapping[str, str], folder: Path) -> dict[str, str | None]:
    """Every setting of the site: as given, or its default. Raises :class:`Refused`."""
    listed = json.loads((ENDPOINTS / site / "settings.json").read_text("utf-8"))
    for key in given:
        if key not in listed:
            raise Refused(f"{site} has no setting '{key}'; it has {', '.join(sorted(listed))}.")
    decided: dict[str, str | None] = {}
    for key, about in listed.items():
        value = given.get(key, about.get("default"))
        if value is None and not about.get("optional"):
            raise Refused(f"The setting '{key}' is missing: {about['meaning']} (--set {key}=…).")
        if value is not None:
            value = value.replace("<endpoint-dir>", str(folder))
            grammar = GRAMMARS.get(key, WORD)
            if not re.fullmatch(grammar, value) or ".." in value or "//" in value:
                raise Refused(f"The setting '{key}' cannot be {value!r}: {about['meaning']}.")
        decided[key] = value
    spare = seconds(str(decided["build-walltime"])) - int(str(decided["build-limit-s"]))
    if spare <= RESERVE_S:
        raise Refused(
            f"The setting 'build-walltime' ({decided['build-walltime']}) must be at least {RESERVE_S} seconds "
            f"longer than 'build-limit-s' ({decided['build-limit-s']})."
        )
    return decided


def seconds(walltime: str) -> int:
    """``HH:MM:SS`` in seconds."""
    hours, minutes, rest = (int(part) for part in walltime.split(":"))
    return hours * 3600 + minutes * 60 + rest


def rendered(
    site: str, decided: Mapping[str, str | None], folder: Path, allowed: list[str]
) -> dict[str, str]:
    """The text of every file, with no placeholder left."""
    root = str(decided["image-root"]).rstrip("/")
    pattern = USER_PATTERN.join(re.escape(part) for part in root.split("$USER"))
    walltime_s = seconds(str(decided["build-walltime"]))
    fillings = {
        "<endpoint-dir>": str(folder),
        # The pattern stands inside a JSON string, so it is escaped once more.
        "<image-root-pattern>": json.dumps(pattern)[1:-1],
        "<build-walltime-s>": str(walltime_s),
        "<build-drain-s>": str(walltime_s - RESERVE_S - int(str(decided["build-limit-s"]))),
        '"<build-limit-s>"': str(decided["build-limit-s"]),
    }
    for key, value in decided.items():
        fillings[f"<{key}>"] = json.dumps(value) if key in BARE else str(value)
    if allowed:
        for function in allowed:
            if not UUID.fullmatch(function):
                raise Refused(f"{function!r} is not the id of a function (a UUID in lower case).")
        listed = "".join(f"\n  - {function}" for function in allowed)
        fillings["# <allowed-functions>"] = f"allowed_functions:{listed}"
    else:
        fillings["# <allowed-functions>"] = (
            "# allowed_functions: none listed, so every function may run here; see --allow"
        )
    texts = {}
    for name in FILES:
        text = (ENDPOINTS / site / name).read_text("utf-8")
        for placeholder, value in fillings.items():
            text = text.replace(placeholder, value)
        texts[name] = text
    # the room itself: an unpacked source distribution has no links to it in the package
    return {**texts, IMAGE_CHECK: image_check(REPOSITORY / "functions")}


def install(
    folder: Path, texts: Mapping[str, str], *, replace: bool, dry_run: bool
) -> list[tuple[str, str]]:
    """Write what differs; returns each file's name and what happened to it: ``written``, ``unchanged`` or
    ``edited``, which is then left alone unless ``replace``. With ``dry_run`` nothing is touched."""
    record = folder / RECORD
    written: dict[str, str] = json.loads(record.read_text("utf-8")) if record.exists() else {}
    foreign = [name for name in texts if name not in written and (folder / name).exists()]
    if foreign and not replace:
        raise Refused(
            f"{folder} holds files that this script did not write ({', '.join(foreign)}); "
            "choose another folder with --to, or overwrite them with --replace."
        )
    done = []
    for name, text in texts.items():
        target = folder / name
        current = target.read_text("utf-8") if target.exists() else None
        if current == text:
            done.append((name, "unchanged"))
        elif current is not None and digest(current) != written.get(name) and not replace:
            done.append((name, "edited"))
            continue
        else:
            done.append((name, "written"))
            if not dry_run:
                write_aside(target, text)
        written[name] = digest(text)
    if not dry_run:
        write_aside(record, json.dumps(written, indent=2) + "\n")
    return done


def listed_in(file: Path) -> list[str]:
    """The ids in a list of functions, but for the one that belongs to the 'run' profile alone."""
    entries = re.findall(r"^\s*- (\S+)(.*)$", file.read_text("utf-8"), re.MULTILINE)
    return [identifier for identifier, comment in entries if "run_in_container" not in comment]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_aside(path: Path, text: str) -> None:
    """Replace ``path`` in one step. Readable by all: an endpoint of root's reads it as the mapped user."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="install_endpoint.sh", description=__doc__)
    made.add_argument("site", choices=sites())
    made.add_argument(
        "--to", type=Path, help="the endpoint's folder; default: cib-flows-SITE beside the others"
    )
    made.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings")
    made.add_argument(
        "--allow", action="append", default=[], metavar="FUNCTION_ID",
        help="a function that control and build may run ('cib-flows deploy' prints them); repeat",
    )  # fmt: skip
    made.add_argument(
        "--allow-file", type=Path, metavar="FILE",
        help="the list that 'cib-flows deploy' prints or writes (allowed_functions.yaml)",
    )  # fmt: skip
    made.add_argument("--replace", action="store_true", help="overwrite files that were edited")
    made.add_argument("--dry-run", action="store_true", help="say what would be done")
    return made


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    parent = os.environ.get("GLOBUS_COMPUTE_USER_DIR") or "~/.globus_compute"
    folder: Path = options.to or Path(parent).expanduser() / f"cib-flows-{options.site}"
    folder = folder.absolute()
    try:
        pairs = [item.partition("=") for item in options.settings]
        if bad := next((key for key, equals, _ in pairs if not equals), None):
            raise Refused(f"--set takes NAME=VALUE, not {bad!r}.")
        decided = decide(options.site, {key: value for key, _, value in pairs}, folder)
        allowed = [*options.allow, *(listed_in(options.allow_file) if options.allow_file else [])]
        texts = rendered(options.site, decided, folder, allowed)
        done = install(folder, texts, replace=options.replace, dry_run=options.dry_run)
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    except OSError as problem:
        print(f"error: {problem}.", file=sys.stderr)
        return 1
    words = {"written": "would write" if options.dry_run else "wrote", "unchanged": "unchanged",
             "edited": "left alone, edited since"}  # fmt: skip
    for name, what in done:
        print(f"{words[what]}: {folder / name}")
    if not options.dry_run:
        print(f"start it with: globus-compute-endpoint start {folder.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
