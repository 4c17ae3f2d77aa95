"""A definition's text as values, with the line on which each of them stands."""

from __future__ import annotations

import bisect
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cib_flows.errors import UsageError

from .problems import Place

__all__ = ["Position", "Source", "Unparsable", "parse", "read_source"]

MAX_BYTES = 10_000_000
# Aliases let a short YAML text stand for an endless one.
MAX_YAML_NODES = 200_000


@dataclass(frozen=True, order=True)
class Position:
    """Line and column, both from 1."""

    line: int
    column: int


@dataclass
class Source:
    """``positions`` holds where each value begins, at its key where it has one; ``duplicates`` the
    keys that stand in one object twice."""

    value: Any = None
    positions: dict[Place, Position] = field(default_factory=dict)
    duplicates: list[tuple[Place, Position]] = field(default_factory=list)

    def position(self, place: Place) -> Position:
        """Where ``place`` stands, or the nearest thing around it that is there."""
        for length in range(len(place), -1, -1):
            found = self.positions.get(place[:length])
            if found is not None:
                return found
        return Position(1, 1)


class Unparsable(Exception):
    """The text is not JSON or YAML; ``position`` is where reading stopped."""

    def __init__(self, message: str, position: Position) -> None:
        super().__init__(message)
        self.position = position


def read_source(path: str | Path) -> Source:
    """The JSON or YAML file at ``path``; files that end in .json are read as JSON only.

    :raises UsageError: the file cannot be read, or is no text
    :raises Unparsable: it holds neither
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} has {len(data)} bytes, which is no flow definition.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text file in UTF-8.") from None
    return parse(text, as_json=path.suffix.lower() == ".json")


def parse(text: str, *, as_json: bool | None = None) -> Source:
    """``text`` as JSON or YAML; as JSON when it begins with a brace and nothing else is said.

    :raises Unparsable: with the line at which reading stopped
    """
    if as_json is None:
        as_json = text.lstrip()[:1] in ("{", "[")
    try:
        return _Json(text).read() if as_json else _Yaml(text).read()
    except RecursionError:
        raise Unparsable("the values are nested too deeply", Position(1, 1)) from None


# --- JSON -----------------------------------------------------------------------------------------

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_DECODER = json.JSONDecoder()
_WORDS = {"true": True, "false": False, "null": None}


class _Json:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._source = Source()
        self._lines = [match.end() for match in re.finditer("\n", text)]

    def read(self) -> Source:
        self._skip()
        self._source.positions[()] = self._here()
        self._source.value = self._value(())
        self._skip()
        if self._at < len(self._text):
            raise self._wrong("nothing more was expected after the value")
        return self._source

    def _here(self) -> Position:
        line = bisect.bisect_right(self._lines, self._at)
        begin = self._lines[line - 1] if line else 0
        return Position(line + 1, self._at - begin + 1)

    def _wrong(self, message: str) -> Unparsable:
        return Unparsable(message, self._here())

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _next(self) -> str:
        self._skip()
        return self._text[self._at : self._at + 1]

    def _value(self, place: Place) -> Any:
        begin = self._next()
        if begin == "{":
            return self._object(place)
        if begin == "[":
            return self._array(place)
        if begin == '"':
            return self._string()
        for word, value in _WORDS.items():
            if self._text.startswith(word, self._at):
                self._at += len(word)
                return value
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            raise self._wrong("a value was expected" if begin else "the text ends too early")
        text = match.group()
        number: int | float
        try:
            number = float(text) if match.group(1) or match.group(2) else int(text)
        except ValueError:
            raise self._wrong("the number is too long") from None
        if isinstance(number, float) and not math.isfinite(number):
            raise self._wrong(f"the number {text} is too large")
        self._at = match.end()
        return number

    def _string(self) -> str:
        try:
            text, self._at = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._at = error.pos
            raise self._wrong(error.msg[0].lower() + error.msg[1:]) from None
        return str(text)

    def _object(self, place: Place) -> dict[str, Any]:
        self._at += 1
        result: dict[str, Any] = {}
        if self._next() == "}":
            self._at += 1
            return result
        while True:
            if self._next() != '"':
                raise self._wrong("a key in double quotes was expected")
            position = self._here()
            key = self._string()
            if self._next() != ":":
                raise self._wrong(f"a colon was expected after the key {key!r}")
            self._at += 1
            here = (*place, key)
            if key in result:
                self._source.duplicates.append((here, position))
            self._source.positions[here] = position
            result[key] = self._value(here)
            if not self._goes_on("}"):
                return result

    def _array(self, place: Place) -> list[Any]:
        self._at += 1
        result: list[Any] = []
        if self._next() == "]":
            self._at += 1
            return result
        while True:
            here = (*place, len(result))
            self._skip()
            self._source.positions[here] = self._here()
            result.append(self._value(here))
            if not self._goes_on("]"):
                return result

    def _goes_on(self, end: str) -> bool:
        """Whether another entry follows."""
        sign = self._next()
        if sign not in (",", end) or not sign:
            raise self._wrong(f"a comma or '{end}' was expected")
        at = self._at
        self._at += 1
        if sign == "," and self._next() == end:
            self._at = at
            raise self._wrong(f"a comma before '{end}' is not allowed")
        return sign == ","


# --- YAML -----------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Reads times as the text that they are in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Yaml:
    def __init__(self, text: str) -> None:
        self._text = text
        self._source = Source()
        self._nodes = 0
        self._open: list[yaml.Node] = []

    def read(self) -> Source:
        loader = _Loader(self._text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise Unparsable("the file is empty", Position(1, 1))
            self._source.positions[()] = _position(node)
            self._source.value = self._value(loader, node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            position = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
            raise Unparsable(str(error.problem or error.context), position) from None
        except yaml.YAMLError as error:
            raise Unparsable(str(error).splitlines()[0], Position(1, 1)) from None
        finally:
            loader.dispose()
        return self._source

    def _value(self, loader: _Loader, node: yaml.Node, place: Place) -> Any:
        self._nodes += 1
        if self._nodes > MAX_YAML_NODES:
            raise Unparsable("it stands for too many values", _position(node))
        if any(node is outer for outer in self._open):
            raise Unparsable("a value cannot hold itself", _position(node))
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return dict(self._entries(loader, node, place))
            if isinstance(node, yaml.SequenceNode):
                return [self._item(loader, item, (*place, n)) for n, item in enumerate(node.value)]
            return self._scalar(loader, node)
        finally:
            self._open.pop()

    def _scalar(self, loader: _Loader, node: yaml.Node) -> Any:
        value = loader.construct_object(node)
        if isinstance(value, str):
            # JSON writes characters beyond the first 65,536 as two escapes, which YAML keeps apart.
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if isinstance(value, (bool, int)) or value is None:
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        raise Unparsable(f"{node.value!r} is no JSON value; put it in quotes", _position(node))

    def _item(self, loader: _Loader, node: yaml.Node, place: Place) -> Any:
        self._source.positions[place] = _position(node)
        return self._value(loader, node, place)

    def _entries(
        self, loader: _Loader, node: yaml.MappingNode, place: Place
    ) -> Iterator[tuple[str, Any]]:
        own = {id(key) for key, _ in node.value}
        seen: set[str] = set()
        loader.flatten_mapping(node)
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise Unparsable("a key must be text", _position(key_node))
            # JSON's keys are text, whatever YAML 1.1 takes "on" or "2" for.
            key = str(key_node.value)
            here = (*place, key)
            if key in seen and id(key_node) in own:
                self._source.duplicates.append((here, _position(key_node)))
            if id(key_node) in own:
                seen.add(key)
            self._source.positions[here] = _position(key_node)
            yield key, self._value(loader, value_node, here)


def _position(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)
