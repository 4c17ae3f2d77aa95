"""What is wrong with an input schema, and what a form made from it would not show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema

from .findings import Remark, remark
from .problems import Place

__all__ = ["schema_errors", "schema_remarks"]

# Formats with a widget of their own, and the properties that their objects need.
OBJECT_FORMATS: dict[str, tuple[str, ...]] = {
    "globus-collection": ("id", "path"),
    "globus-principal": ("id", "type", "urn"),
}
TOP_FORMATS = frozenset({*OBJECT_FORMATS, "globus-compute-endpoint"})
_OLD_FORMATS = frozenset(
    {"globus-collection-id", "globus-collection-path", "globus-collection-directory"}
)
MAX_DEPTH = 40


def schema_errors(schema: Any) -> Iterator[jsonschema.ValidationError]:
    """Why ``schema`` is not JSON Schema, draft 7; what is no regular expression counts, since a
    run's input would be the first to notice it."""
    draft = jsonschema.Draft7Validator
    checker = jsonschema.FormatChecker(["regex"])
    yield from draft(draft.META_SCHEMA, format_checker=checker).iter_errors(schema)


def schema_remarks(schema: Any) -> Iterator[Remark]:
    """Remarks on an input schema; their places begin at its root."""
    if not isinstance(schema, dict):
        yield remark("wrong-type", (), "An input schema is an object.", "Write {} for any input.")
        return
    for problem in schema_errors(schema):
        yield remark(
            "invalid-schema",
            tuple(problem.absolute_path),
            f"This is not JSON Schema: {problem.message[:300]}.",
            "Correct it after JSON Schema, draft 7.",
        )
    yield from _remarks(schema, (), MAX_DEPTH)


def _remarks(schema: Any, place: Place, depth: int) -> Iterator[Remark]:
    if not isinstance(schema, dict) or depth == 0:
        return
    yield from _format_remarks(schema, place)
    properties = schema.get("properties")
    if isinstance(properties, dict):
        yield from _property_remarks(schema, properties, place)
        for name, part in properties.items():
            yield from _remarks(part, (*place, "properties", name), depth - 1)
    for word in ("items", "additionalProperties", "not"):
        yield from _remarks(schema.get(word), (*place, word), depth - 1)
    for word in ("oneOf", "anyOf", "allOf"):
        parts = schema.get(word)
        for number, part in enumerate(parts if isinstance(parts, list) else ()):
            yield from _remarks(part, (*place, word, number), depth - 1)


def _property_remarks(
    schema: dict[str, Any], properties: dict[str, Any], place: Place
) -> Iterator[Remark]:
    for word in ("additionalProperties", "required", "propertyOrder"):
        if word in properties and not isinstance(properties[word], dict):
            yield remark(
                "keyword-among-properties",
                (*place, "properties", word),
                f"{word!r} stands among the properties, where it is the name of one.",
                "Move it out, beside 'properties'.",
            )
    for word in ("required", "propertyOrder"):
        names = schema.get(word)
        for number, name in enumerate(names if isinstance(names, list) else ()):
            if (
                isinstance(name, str)
                and name not in properties
                and not schema.get("patternProperties")
            ):
                yield remark(
                    "unknown-property",
                    (*place, word, number),
                    f"{word!r} names {name!r}, which is not among the properties.",
                    "Correct the name, or describe the property.",
                )


def _format_remarks(schema: dict[str, Any], place: Place) -> Iterator[Remark]:
    name = schema.get("format")
    if not isinstance(name, str):
        return
    here = (*place, "format")
    if name in _OLD_FORMATS:
        yield remark(
            "deprecated-format",
            here,
            f"The format {name!r} is not documented any more, and may show as plain text.",
            "Use an object of id and path with the format 'globus-collection'.",
        )
    if name not in TOP_FORMATS:
        return
    if len(place) != 2:
        yield remark(
            "nested-format",
            here,
            f"The format {name!r} shows its widget only on a property at the top of the schema.",
            "Move the property to the top, and put the parts together in the flow.",
        )
    properties = schema.get("properties")
    for part in OBJECT_FORMATS.get(name, ()):
        if not isinstance(properties, dict) or part not in properties:
            yield remark(
                "incomplete-format",
                place,
                f"An object of the format {name!r} has the property {part!r}.",
                f"Its properties are exactly {', '.join(OBJECT_FORMATS[name])}.",
            )
