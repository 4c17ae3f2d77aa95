"""The list of functions that an endpoint's control and build profiles run, and no others.

An endpoint reads it from ``allowed_functions.yaml`` beside its template. For the endpoint of a local
home a deployment writes that file; for others it is printed, since only their administrator may.
"""

from __future__ import annotations

import re
from pathlib import Path

from cib_flows.deployment_record import Deployment
from cib_flows.files import write_whole

__all__ = ["allow_list_path", "as_yaml", "missing_from", "restore", "write_allow_list"]

HEAD = (
    "# The functions that the control and build profiles run; 'cib-flows deploy' writes this file.\n"
    "allowed_functions:\n"
)
ENTRY = re.compile(r"  - (?P<id>[0-9a-f-]{36})  # (?P<name>\S+), of (?P<record>.+)")


def allow_list_path(home: Path) -> Path:
    """The file in the local home's endpoint configuration."""
    return home / "endpoint" / "allowed_functions.yaml"


def as_yaml(deployment: Deployment, record: Path) -> str:
    """The list for one deployment, which is all that an administrator's endpoint needs."""
    return HEAD + _entries(deployment, record)


def _entries(deployment: Deployment, record: Path) -> str:
    names = {identifier: name for name, identifier in deployment.function_ids.items()}
    return "".join(
        f"  - {identifier}  # {names.get(identifier, 'the-deployment-before')}, of {record}\n"
        for identifier in deployment.allowed_functions
    )


def write_allow_list(home: Path, deployment: Deployment, record: Path) -> str | None:
    """Puts the deployment's functions on the home's list, in place of those that the same record
    put there; those of other records stay while these exist.

    Returns what the file held before, for ``restore``; None when there was none.
    """
    path = allow_list_path(home)
    try:
        before: str | None = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        before = None
    kept = [
        line + "\n"
        for line in (before or "").splitlines()
        if (entry := ENTRY.fullmatch(line))
        and entry["record"] != str(record)
        and Path(entry["record"]).exists()
    ]
    text = HEAD + "".join(kept) + _entries(deployment, record)
    _write(home, text)
    return before


def restore(home: Path, before: str | None) -> None:
    """Makes the home's list what ``write_allow_list`` found."""
    _write(home, before)


def _write(home: Path, text: str | None) -> None:
    """The list of the home's endpoint and of its further ones, which allow the same."""
    further = [entry.parent / "endpoint" for entry in home.glob("endpoints/*/endpoint.json")]
    for folder in (allow_list_path(home).parent, *further):
        path = folder / allow_list_path(home).name
        if text is None:
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)


def missing_from(home: Path, deployment: Deployment) -> list[str]:
    """Names of the deployment's functions that the home's list lacks; none where there is no list,
    since then everything is allowed.
    """
    try:
        text = allow_list_path(home).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    listed = {entry["id"] for line in text.splitlines() if (entry := ENTRY.fullmatch(line))}
    return [
        name for name, identifier in deployment.function_ids.items() if identifier not in listed
    ]
