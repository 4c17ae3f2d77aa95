"""A conda environment.yml, of which only what conda itself writes and reads is known.

The standard library has no YAML, and a whole YAML is more than such a file may say: names, two lists, and a
list within the second. What this reads, a YAML parser reads the same way; everything else is refused.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from .spec_words import SpecRefused, shown

MAX_ENVIRONMENT_CHARS = 16 * 1024
ENVIRONMENT_KEYS = ("name", "channels", "dependencies", "prefix")
FLOW_ITEM = re.compile(r"\s*(\"[^\"\\]*\"|'[^']*'|[^\s,\[\]{}\"'#&*!|>%@`][^,\[\]{}\"'#]*)\s*(,|$)")


class CondaEnvironment(NamedTuple):
    """What an environment.yml asks for, unchecked: each item with the name that messages give its place."""

    channels: list[tuple[str, str]]
    conda: list[tuple[str, str]]
    pip: list[tuple[str, str]]


def read_environment(text: str, name: str) -> CondaEnvironment:
    """The lists of an environment.yml, which messages call ``name``; raises :class:`SpecRefused`."""
    if text.lstrip().startswith("{"):
        return _from_json(text, name)
    return _Reader(name).read(text)


def _from_json(text: str, name: str) -> CondaEnvironment:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise SpecRefused(name, f"'{name}' begins like JSON but is not.") from None
    found = CondaEnvironment([], [], [])
    for key, value in content.items():
        if key not in ENVIRONMENT_KEYS:
            raise _unknown_key(key, name, name)
        if key in ("channels", "dependencies") and not isinstance(value, list):
            raise SpecRefused(name, f"'{name}' must have a list as {shown(key)}.")
        for item in value if key == "channels" else []:
            found.channels.append((name, _string_in(item, name)))
        for item in value if key == "dependencies" else []:
            if isinstance(item, dict) and list(item) == ["pip"] and isinstance(item["pip"], list):
                found.pip.extend((name, _string_in(each, name)) for each in item["pip"])
            else:
                found.conda.append((name, _string_in(item, name)))
    return found


def _string_in(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise SpecRefused(name, f"'{name}' must list strings, not {shown(value)}.")
    return value


def _unknown_key(key: Any, field: str, name: str) -> SpecRefused:
    return SpecRefused(
        field,
        f"'{field}' has the unknown key {shown(key)}; '{name}' may have name, channels and dependencies.",
    )


class _Reader:
    """Reads line by line; ``key`` is the list that items now belong to, ``dash`` how far its items stand in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.field = name
        self.found = CondaEnvironment([], [], [])
        self.seen: set[str] = set()
        self.key = ""
        self.dash = -1
        self.pip_dash: int | None = (
            None  # how far the pip list's items stand in; -1 until the first
        )

    def read(self, text: str) -> CondaEnvironment:
        for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
            self.field = f"{self.name}, line {number}"
            bare = line.strip()
            if "\t" in line[: len(line) - len(line.lstrip())]:
                raise self._refused("must be indented by blanks, not tabs")
            if not bare or bare.startswith("#") or (bare == "---" and not self.seen):
                continue
            indent = len(line) - len(line.lstrip(" "))
            if bare == "-" or bare.startswith("- "):
                self._item(indent, bare[1:].strip())
            elif indent == 0:
                self._begin(bare)
            else:
                raise self._refused(f"is not understood: {shown(bare)}")
        return self.found

    def _begin(self, line: str) -> None:
        key, colon, value = line.partition(":")
        is_text = not colon or value[:1] not in ("", " ", "\t")
        key, value = key.strip(), value.strip()
        if is_text or key not in ENVIRONMENT_KEYS:
            raise _unknown_key(key, self.field, self.name)
        if key in self.seen:
            raise self._refused(f"has the key {shown(key)} for the second time")
        self.seen.add(key)
        is_list = key in ("channels", "dependencies")
        self.key, self.dash, self.pip_dash = (key if is_list else ""), -1, None
        if not value or value.startswith("#"):
            return
        if not is_list:
            self._scalar(value)
            return
        for item in self._flow(value):
            self._add(key, item)
        self.key = ""

    def _item(self, indent: int, text: str) -> None:
        if not self.key:
            raise self._refused("is a list's item, but no list was begun")
        if self.dash < 0:
            self.dash = indent
        if indent == self.dash:
            self.pip_dash = None
            begins_pip = re.fullmatch(r"[\"']?pip[\"']?\s*:(\s.*)?", text)
            if self.key == "dependencies" and begins_pip:
                listed = (begins_pip[1] or "").strip()
                if listed and not listed.startswith("#"):
                    for item in self._flow(listed):
                        self._add("pip", item)
                else:
                    self.pip_dash = -1
                return
            self._add(self.key, self._scalar(text))
        elif self.pip_dash is not None and indent > self.dash and self.pip_dash in (-1, indent):
            self.pip_dash = indent
            self._add("pip", self._scalar(text))
        else:
            raise self._refused("does not stand below the items before it")

    def _flow(self, text: str) -> list[str]:
        inner = re.fullmatch(r"\[(.*)\]\s*(#.*)?", text)
        if not inner:
            raise self._refused(f"must have a list, not {shown(text)}")
        items, place = [], 0
        while inner[1][place:].strip():
            found = FLOW_ITEM.match(inner[1], place)
            if not found:
                raise self._refused(f"has a list that is not understood: {shown(text)}")
            items.append(self._scalar(found[1].strip()))
            place = found.end()
        return items

    def _scalar(self, text: str) -> str:
        quoted = re.fullmatch(r"(\"([^\"\\]*)\"|'([^']*)')(\s+#.*)?", text)
        if quoted:
            return quoted[2] if quoted[2] is not None else quoted[3]
        plain = re.sub(r"\s#.*", "", text).strip()
        if (
            not plain
            or plain.split()[0] == "-"
            or plain[0] in "\"'&*!|>%@`{[]},?#"
            or re.search(r":(\s|$)", plain)
        ):
            raise self._refused(f"must have a plain text, not {shown(text)}")
        return plain

    def _add(self, key: str, item: str) -> None:
        lists = {
            "channels": self.found.channels,
            "dependencies": self.found.conda,
            "pip": self.found.pip,
        }
        lists[key].append((self.field, item))

    def _refused(self, what: str) -> SpecRefused:
        return SpecRefused(self.field, f"'{self.field}' {what}.")
