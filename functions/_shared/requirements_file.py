"""A requirements.txt, read line by line with the grammar that every Python requirement of a spec has."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .grammars import PEP508, https_host
from .spec_words import SpecRefused, line_of, matching, shown

MAX_REQUIREMENTS_CHARS = 16 * 1024


class RequirementLine(NamedTuple):
    """``kind`` is requirement, index (an extra one), include (another file) or project (the folder itself)."""

    field: str
    kind: str
    value: str


def requirement_of(value: Any, field: str) -> str:
    """One requirement, or :class:`SpecRefused`."""
    text = line_of(value, field, 512).strip()
    if text.startswith("-"):
        raise SpecRefused(
            field, f"'{field}' must be a requirement, not the pip option {shown(text)}."
        )
    if re.match(r"[./~]|file:", text):
        raise SpecRefused(
            field,
            f"'{field}' must be a requirement, not the file or folder {shown(text)}, which only a payload with "
            "'payload.install' can bring.",
        )
    if re.match(r"(git\+)?https?://", text):
        raise SpecRefused(
            field,
            f"'{field}' must name the package before its address, as in \"x @ https://…\", not {shown(text)}.",
        )
    text = matching(
        text, field, PEP508, 512, 'a requirement such as pandas[excel]>=2,<4 or "x @ https://…"'
    )
    found = PEP508.fullmatch(text)
    if found and found["url"] and not https_host(found["url"].removeprefix("git+")):
        raise SpecRefused(
            field,
            f"'{field}' must have an https address without user name or password, not {shown(text)}.",
        )
    return text


def index_of(value: Any, field: str) -> str:
    """The https address of a package index."""
    text = line_of(value, field, 512)
    if not text.startswith("https://") or not https_host(text):
        raise SpecRefused(
            field,
            f"'{field}' must be the https address of a package index without user name or password, "
            f"not {shown(text)}.",
        )
    return text


def read_requirements(text: str, name: str) -> list[RequirementLine]:
    """The lines of ``text``, which messages call ``name``. Raises :class:`SpecRefused` for the first odd one.

    Of pip's options only ``--extra-index-url``, ``-r FILE`` and ``-e .`` are read; whether they are welcome
    is the caller's to say.
    """
    found = []
    lines = text.replace("\r\n", "\n").split("\n")
    number = 0
    while number < len(lines):
        number += 1
        field = f"{name}, line {number}"
        line = lines[number - 1]
        while line.endswith("\\") and number < len(lines):
            line = line[:-1] + lines[number]
            number += 1
        line = re.sub(r"(^|\s)#.*", "", line.replace("\t", " ")).strip()
        if line:
            found.append(requirement_line(line, field))
    return found


def requirement_line(line: str, field: str) -> RequirementLine:
    """One line without comments and continuations, or :class:`SpecRefused`."""
    option, separator, rest = line.partition(" ")
    if line.startswith("--") and "=" in option:
        option, separator, rest = line.partition("=")
    rest = rest.strip() if separator else ""
    if option == "--extra-index-url":
        return RequirementLine(field, "index", index_of(rest, field))
    if option in ("-r", "--requirement"):
        return RequirementLine(field, "include", line_of(rest, field, 256))
    if line in (".", "./") or (option in ("-e", "--editable") and rest in (".", "./")):
        return RequirementLine(field, "project", ".")
    if " --" in line and not line.startswith("-"):
        raise SpecRefused(
            field, f"'{field}' must be a requirement without pip options, not {shown(line)}."
        )
    return RequirementLine(field, "requirement", requirement_of(line, field))
