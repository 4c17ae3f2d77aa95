"""What is known about a run's document before it exists: which fields it has for certain, which it
may have, and which it cannot have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal

from .paths import Step

__all__ = [
    "ANYTHING",
    "LEAF",
    "Field",
    "Leaf",
    "Listed",
    "Object",
    "Shape",
    "Verdict",
    "Whatever",
    "join",
    "literal",
    "look_up",
    "presume",
    "read",
    "write",
]

MAX_DEPTH = 8

# What a path finds: it is there; it may be there; only an input that the schema does not describe
# could bring it; it is never there.
Verdict = Literal["there", "perhaps", "undescribed", "never"]
_ORDER: tuple[Verdict, ...] = ("there", "perhaps", "undescribed", "never")


@dataclass(frozen=True)
class Whatever:
    """A value of which nothing is known. ``origin`` is "input" for what a run was started with and
    no schema describes."""

    origin: str = ""


@dataclass(frozen=True)
class Leaf:
    """A value without fields. ``means_present`` is the path that is there when it is true."""

    means_present: tuple[Step, ...] | None = None


@dataclass(frozen=True)
class Field:
    shape: Shape
    sure: bool = True


@dataclass(frozen=True)
class Object:
    """``rest`` is the verdict on fields that are not listed."""

    fields: Mapping[str, Field] = field(default_factory=dict)
    rest: Verdict = "never"


@dataclass(frozen=True)
class Listed:
    """A list: of known ``items``, or of any number of values like ``each``."""

    items: tuple[Shape, ...] | None
    each: Shape


Shape = Whatever | Leaf | Object | Listed
ANYTHING = Whatever()
LEAF = Leaf()


def literal(value: Any) -> Shape:
    """The shape of a value that is written in the definition."""
    if isinstance(value, dict):
        return Object({key: Field(literal(item)) for key, item in value.items()})
    if isinstance(value, list):
        items = tuple(literal(item) for item in value)
        return Listed(items, join(items))
    return LEAF


# --- reading --------------------------------------------------------------------------------------


def read(shape: Shape, steps: Iterable[Step]) -> tuple[Verdict, Shape]:
    """What a path of ``steps`` finds in ``shape``, and the shape of what it finds."""
    verdict: Verdict = "there"
    for step in steps:
        here, shape = _step(shape, step)
        verdict = max(verdict, here, key=_ORDER.index)
        if verdict == "never":
            return "never", ANYTHING
    return verdict, shape


def look_up(shape: Shape, steps: Iterable[Step]) -> Shape:
    """The shape of what the path finds; anything where it finds nothing."""
    return read(shape, steps)[1]


def _step(shape: Shape, step: Step) -> tuple[Verdict, Shape]:
    if isinstance(shape, Whatever):
        return ("undescribed" if shape.origin else "there"), ANYTHING
    if isinstance(shape, Object) and isinstance(step, str):
        known = shape.fields.get(step)
        if known is None:
            return shape.rest, ANYTHING
        return ("there" if known.sure else "perhaps"), known.shape
    if isinstance(shape, Listed) and isinstance(step, int):
        if shape.items is None:
            return "there", shape.each
        if -len(shape.items) <= step < len(shape.items):
            return "there", shape.items[step]
    return "never", ANYTHING


# --- writing --------------------------------------------------------------------------------------


def write(shape: Shape, steps: tuple[Step, ...], value: Shape) -> Shape:
    """``shape`` with ``value`` at a reference path."""
    return _cut(_written(shape, steps, value), MAX_DEPTH)


def _written(shape: Shape, steps: tuple[Step, ...], value: Shape) -> Shape:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        if isinstance(shape, Whatever):
            inner = _written(shape, rest, value) if rest else value
            # What else the object holds stays unknown, as it was.
            return Object({step: Field(inner)}, "undescribed" if shape.origin else "there")
        if isinstance(shape, Object):
            before = shape.fields.get(step)
            holder = before.shape if before is not None else Object()
            return replace(
                shape, fields={**shape.fields, step: Field(_written(holder, rest, value))}
            )
        return Object({step: Field(_written(Object(), rest, value))})
    if isinstance(shape, Listed) and shape.items is not None:
        items = list(shape.items)
        if -len(items) <= step < len(items):
            items[step] = _written(items[step], rest, value)
        return Listed(tuple(items), join(items))
    return shape


def presume(shape: Shape, steps: tuple[Step, ...], present: bool) -> Shape:
    """``shape`` on the way that is taken when the path is there, or when it is not."""
    if not steps or not isinstance(shape, Object) or not isinstance(steps[0], str):
        return shape
    name, rest = steps[0], steps[1:]
    known = shape.fields.get(name)
    if present:
        inner: Shape = known.shape if known is not None else _holding(rest)
        field_now = Field(presume(inner, rest, True) if rest else inner, True)
        return replace(shape, fields={**shape.fields, name: field_now})
    if rest:
        if known is None or not known.sure:
            return shape
        return replace(
            shape, fields={**shape.fields, name: Field(presume(known.shape, rest, False))}
        )
    without = {key: value for key, value in shape.fields.items() if key != name}
    return replace(shape, fields=without, rest=shape.rest if known is not None else "never")


def _holding(steps: tuple[Step, ...]) -> Shape:
    if not steps or not isinstance(steps[0], str):
        return ANYTHING
    return Object({steps[0]: Field(_holding(steps[1:]))}, "there")


# --- joining --------------------------------------------------------------------------------------


def join(shapes: Iterable[Shape]) -> Shape:
    """What is known when it may be any of ``shapes``."""
    found = list(shapes)
    return reduce(_join, found) if found else ANYTHING


def _join(one: Shape, other: Shape) -> Shape:
    if one == other:
        return one
    if isinstance(one, Object) and isinstance(other, Object):
        fields = {}
        for name in [*one.fields, *(key for key in other.fields if key not in one.fields)]:
            fields[name] = _joined_field(one, other, name)
        return Object(fields, min(one.rest, other.rest, key=_ORDER.index))
    if isinstance(one, Listed) and isinstance(other, Listed):
        if one.items is not None and other.items is not None and len(one.items) == len(other.items):
            items = tuple(_join(*pair) for pair in zip(one.items, other.items, strict=True))
            return Listed(items, join(items))
        return Listed(None, _join(one.each, other.each))
    if isinstance(one, Leaf) and isinstance(other, Leaf):
        return LEAF
    return ANYTHING


def _joined_field(one: Object, other: Object, name: str) -> Field:
    left, right = one.fields.get(name), other.fields.get(name)
    if left is not None and right is not None:
        return Field(_join(left.shape, right.shape), left.sure and right.sure)
    known = left or right
    assert known is not None
    lacking = other if left is not None else one
    # Where the other side may hold anything of that name, nothing is known about what it holds.
    unknown = lacking.rest in ("there", "undescribed")
    return Field(ANYTHING if unknown else known.shape, lacking.rest == "there")


def _cut(shape: Shape, depth: int) -> Shape:
    if depth == 0:
        return ANYTHING if isinstance(shape, (Object, Listed)) else shape
    if isinstance(shape, Object):
        fields = {
            key: Field(_cut(item.shape, depth - 1), item.sure) for key, item in shape.fields.items()
        }
        return Object(fields, shape.rest)
    if isinstance(shape, Listed):
        items = None if shape.items is None else tuple(_cut(s, depth - 1) for s in shape.items)
        return Listed(items, _cut(shape.each, depth - 1))
    return shape
