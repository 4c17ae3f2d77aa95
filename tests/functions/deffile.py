"""Apptainer's reading of a definition file, written anew from its documented rules.

It shares nothing with the renderer, so that what the renderer believes about definition files is tested too.
``tests/apptainer/test_definition_rules.py`` holds these rules against the real Apptainer:

* a stage begins at every ``bootstrap:`` at a line's beginning, whatever the case;
* ``{{ word }}`` is a build argument, also across lines;
* a line whose first word begins with ``%`` ends the section before it, even when indented;
* a section with the line after it must stay below 64 KiB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SCANNER_LIMIT = 64 * 1024
HEADERS = frozenset({"bootstrap", "from", "stage"})
SECTIONS = frozenset({"labels", "post", "environment", "runscript", "help", "files"})


class NotReadable(Exception):
    """Apptainer would refuse this file, or read something else than was meant."""


@dataclass
class Recipe:
    header: dict[str, str] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> Recipe:
    """The one stage of a definition file; raises :class:`NotReadable` for any section but ours."""
    stages = parse_stages(text)
    if len(stages) != 1:
        raise NotReadable("more or less than one stage")
    return stages[0]


def parse_stages(text: str) -> list[Recipe]:
    """The stages of a definition file, each as :func:`parse` reads it."""
    if re.search(r"\{\{\s*\w+\s*\}\}", text):
        raise NotReadable("a build argument")
    begins = [found.start() for found in re.finditer(r"(?mi)^bootstrap:", text)]
    if not begins or text[: begins[0]].strip():
        raise NotReadable("something before the first stage")
    return [_stage(text[a:b]) for a, b in zip(begins, [*begins[1:], len(text)], strict=True)]


def _stage(text: str) -> Recipe:
    recipe = Recipe()
    current: str | None = None
    size = 0
    # Go's bufio.ScanLines knows no other end of a line
    for line in text.split("\n"):
        size += len(line.encode()) + 1
        word = line.split(" ")[0] if line[:1] != " " else line.split()[:1]
        first = word[0] if isinstance(word, list) and word else word
        if isinstance(first, str) and first.lstrip().startswith("%"):
            name = first.lstrip().lstrip("%").lower()
            if name == "files" and line != "%files from spack":
                raise NotReadable(f"files of the host: {line!r}")
            if line.lstrip() != line or name not in SECTIONS or name in recipe.sections:
                raise NotReadable(f"the section {line!r}")
            current, size = name, len(line.encode()) + 1
            recipe.sections[name] = ""
        elif current is None:
            if line.strip():
                key, _, value = line.partition(":")
                if key.lower() not in HEADERS or key.lower() in recipe.header:
                    raise NotReadable(f"the header {line!r}")
                if not value or value.rstrip().endswith("\\"):
                    raise NotReadable(f"the header {line!r}")
                recipe.header[key.lower()] = value.split("#")[0].strip()
        else:
            recipe.sections[current] += line + "\n"
        if size >= SCANNER_LIMIT:
            raise NotReadable("a token too long for the scanner")
    return recipe
