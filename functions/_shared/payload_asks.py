"""What a payload's own files ask for, read as repo2docker reads them and checked as a spec is.

The recipe does not depend on them: one fixed part of it installs what is listed here and lent to the build.
"""

from __future__ import annotations

import os
import re
from typing import Any

from .files import read_lent
from .requirements_file import MAX_REQUIREMENTS_CHARS, read_requirements
from .results import StepFailed
from .spec_software import (
    MOST_PACKAGES,
    add_to,
    apt_of,
    brings_python,
    take_environment,
)
from .spec_words import SpecRefused

# Where such files may stand; the first of these folders that exists counts alone.
CONFIG_FOLDERS = ("binder", ".binder", "")
MAX_INCLUDES = 16
ASKED_NOTHING: dict[str, Any] = {
    "apt": [],
    "channels": [],
    "conda": [],
    "indexes": [],
    "pip": [],
    "project": False,
    "post_build": "",
    "start": "",
}


def payload_asks(root: str) -> dict[str, Any]:
    """What the payload in the folder ``root`` asks for.

    ``apt``, ``conda``, ``channels``, ``pip`` and ``indexes`` are lists of checked words; ``project`` says whether
    the payload is a Python project to install; ``post_build`` and ``start`` are programs' paths in it, or empty.
    Raises :class:`StepFailed` ``payload_refused`` for a line that breaks its grammar.
    """
    place = next(f for f in CONFIG_FOLDERS if not f or os.path.isdir(os.path.join(root, f)))
    try:
        return _asks(root, place)
    except SpecRefused as refused:
        raise StepFailed(
            "payload_refused",
            f"The payload asks for what a spec may not: {refused.message}",
            "Correct the file in the payload, or leave 'payload.install' out.",
        ) from None


def asked_of(plan: dict[str, Any]) -> dict[str, Any]:
    """What the plan's payload asks for; nothing where it has none or it is not to be installed."""
    return {**ASKED_NOTHING, **plan.get("asked", {})}


def with_asked(spec: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """The spec as if it had named the packages itself that the payload asks for."""
    asked = asked_of(plan)
    return {**spec, **{key: [*spec[key], *asked[key]] for key in ("apt", "conda", "pip")}}


def lend_asked(asked: dict[str, Any], folder: str) -> None:
    """Write what is asked for into ``folder``, as the recipe reads it: a word per line."""
    os.makedirs(folder, mode=0o755)
    lines = {
        "apt": asked["apt"],
        "channels": asked["channels"],
        "conda": asked["conda"],
        "indexes": asked["indexes"],
        "pip": asked["pip"],
        "post-build": [asked["post_build"]] if asked["post_build"] else [],
        "start": [asked["start"]] if asked["start"] else [],
    }
    if asked["project"]:
        lines["project"] = ["."]
    if brings_python(asked):
        lines["brings-python"] = ["yes"]
    for name, items in lines.items():
        if items:
            with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
                stream.writelines(f"{item}\n" for item in items)


def _asks(root: str, place: str) -> dict[str, Any]:
    checked: dict[str, Any] = {
        "apt": [],
        "conda": [],
        "conda_channels": [],
        "pip": [],
        "pip_extra_index_urls": [],
    }
    apt, name = _text_in(root, place, "apt.txt")
    for number, line in enumerate(apt.splitlines(), 1):
        for word in re.sub(r"#.*", "", line).split():
            add_to(checked["apt"], apt_of(word, f"{name}, line {number}"))
    environment, name = _text_in(root, place, "environment.yml", "environment.yaml")
    pending: list[str] = []
    if environment.strip():
        others = take_environment(checked, environment, name)
        pending = [other if other == "." else os.path.join(place, other) for other in others]
    requirements, name = _text_in(root, place, "requirements.txt")
    project = _take_lines(root, requirements, name, checked, pending)
    project = project or (not place and _is_project(root))
    for field in ("apt", "conda", "pip", "pip_extra_index_urls"):
        if len(checked[field]) > MOST_PACKAGES:
            raise SpecRefused(
                field,
                f"Its files ask for {len(checked[field])} packages; {MOST_PACKAGES} are enough.",
            )
    return {
        "apt": checked["apt"],
        "channels": checked["conda_channels"],
        "conda": checked["conda"],
        "indexes": checked["pip_extra_index_urls"],
        "pip": checked["pip"],
        "project": project,
        "post_build": _program_in(root, place, "postBuild"),
        "start": _program_in(root, place, "start"),
    }


def _take_lines(
    root: str, text: str, name: str, checked: dict[str, Any], pending: list[str]
) -> bool:
    """Add the lines of a requirements.txt and of what it includes; whether they name the project itself."""
    project = "." in pending
    queue: list[tuple[str | None, str]] = [
        (text, name),
        *((None, path) for path in pending if path != "."),
    ]
    seen: set[str] = {name}
    while queue:
        content, name = queue.pop(0)
        if content is None:
            content, name = _included(root, name)
            if name in seen:
                continue
            seen.add(name)
            if len(seen) > MAX_INCLUDES:
                raise SpecRefused(name, f"'{name}' is one included file too many.")
        for field, kind, value in read_requirements(content, name):
            if kind == "requirement":
                add_to(checked["pip"], value)
            elif kind == "index":
                add_to(checked["pip_extra_index_urls"], value)
            elif kind == "project":
                project = True
            else:
                if value.startswith("/"):
                    raise SpecRefused(field, f"'{field}' must include a file of the payload.")
                queue.append((None, os.path.join(os.path.dirname(name), value)))
    return project


def _included(root: str, path: str) -> tuple[str, str]:
    inside = os.path.normpath(path)
    if inside.startswith(("..", "/")):
        raise SpecRefused(inside, f"'{inside}' must be a file of the payload.")
    folder, name = os.path.split(inside)
    text, name = _text_in(root, folder, name)
    if not name:
        raise SpecRefused(inside, f"'{inside}' is included but not in the payload.")
    return text, name


def _text_in(root: str, place: str, *names: str) -> tuple[str, str]:
    """The text of the first of the files that is there, and its path in the payload; both may be empty."""
    for name in names:
        relative = os.path.join(place, name)
        path = os.path.join(root, relative)
        # no part of the way may be a link: the payload is a stranger's
        if os.path.realpath(path) != os.path.join(os.path.realpath(root), relative):
            continue
        if os.path.isfile(path):
            text = read_lent(path, 2 * MAX_REQUIREMENTS_CHARS)
            if len(text) > MAX_REQUIREMENTS_CHARS:
                raise SpecRefused(
                    relative, f"'{relative}' is longer than {MAX_REQUIREMENTS_CHARS} characters."
                )
            return text, relative
    return "", ""


def _is_project(root: str) -> bool:
    """A pyproject.toml that holds nothing but settings of other tools is no project."""
    text, _ = _text_in(root, "", "pyproject.toml")
    if re.search(r"(?m)^\s*\[(project|build-system|tool\.poetry)\]", text):
        return True
    return bool(_text_in(root, "", "setup.py")[1])


def _program_in(root: str, place: str, name: str) -> str:
    relative = os.path.join(place, name)
    path = os.path.join(root, relative)
    return relative if os.path.isfile(path) and not os.path.islink(path) else ""
