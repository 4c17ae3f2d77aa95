"""What an input schema promises about the document that a run begins with."""

from __future__ import annotations

from typing import Any

from .shapes import ANYTHING, LEAF, Field, Listed, Object, Shape, Whatever, join

__all__ = ["input_shape"]

MAX_DEPTH = 12
_SCALARS = {"string", "number", "integer", "boolean", "null"}


def input_shape(schema: Any) -> Shape:
    """The shape of what ``schema`` lets in; of any input when there is none, or an empty one."""
    if not isinstance(schema, dict) or not schema:
        return Whatever("input")
    shape = _shape(schema, schema, MAX_DEPTH)
    return Whatever("input") if isinstance(shape, Whatever) else shape


def _shape(schema: Any, root: dict[str, Any], depth: int) -> Shape:
    if not isinstance(schema, dict) or depth == 0:
        return ANYTHING
    if "$ref" in schema:
        return _shape(_resolved(schema["$ref"], root), root, depth - 1)
    for several in ("oneOf", "anyOf"):
        parts = schema.get(several)
        if isinstance(parts, list) and parts:
            common = {key: value for key, value in schema.items() if key != several}
            return join(_shape(_merged([common, part], root), root, depth - 1) for part in parts)
    if isinstance(schema.get("allOf"), list):
        own = {key: value for key, value in schema.items() if key != "allOf"}
        return _shape(_merged([own, *schema["allOf"]], root), root, depth - 1)
    kind = schema.get("type")
    if kind == "array":
        each = _shape(schema.get("items"), root, depth - 1)
        return Listed(None, each)
    if kind == "object" or (kind is None and "properties" in schema):
        return _object(schema, root, depth)
    if isinstance(kind, str) and kind in _SCALARS:
        return LEAF
    if isinstance(kind, list) and kind and set(map(str, kind)) <= _SCALARS:
        return LEAF
    return ANYTHING


def _object(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Shape:
    properties = schema.get("properties")
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    fields = {
        name: Field(_shape(part, root, depth - 1), name in names)
        for name, part in (properties.items() if isinstance(properties, dict) else ())
    }
    for name in names:
        if isinstance(name, str) and name not in fields:
            fields[name] = Field(ANYTHING)
    if isinstance(schema.get("additionalProperties"), dict) or schema.get("patternProperties"):
        return Object(fields, "there")
    if schema.get("additionalProperties") is False:
        return Object(fields, "never")
    return Object(fields, "undescribed" if fields else "there")


def _resolved(reference: Any, root: dict[str, Any]) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: Any = root
    for part in reference[1:].strip("/").split("/") if reference != "#" else []:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _merged(parts: list[Any], root: dict[str, Any]) -> dict[str, Any]:
    """Object schemas that must all hold, as one."""
    result: dict[str, Any] = {}
    for given in parts:
        part = (
            _resolved(given["$ref"], root) if isinstance(given, dict) and "$ref" in given else given
        )
        if not isinstance(part, dict):
            continue
        properties = {**result.get("properties", {}), **(part.get("properties") or {})}
        required = [*result.get("required", []), *(part.get("required") or [])]
        result = {**result, **part}
        if properties:
            result["properties"] = properties
        if required:
            result["required"] = required
    return result
