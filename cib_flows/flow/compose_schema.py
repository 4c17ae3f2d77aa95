"""One flow's input schema as a property of another's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema

from cib_flows.errors import UsageError

__all__ = ["require_schema", "with_property"]

# Formats whose widget shows only at the top of a form.
FORM_FORMATS = "globus-"


def require_schema(schema: Any, what: str) -> None:
    """:raises UsageError: for what is no JSON Schema of an object; ``what`` names it"""
    validator = jsonschema.Draft7Validator(jsonschema.Draft7Validator.META_SCHEMA)
    if not isinstance(schema, dict) or not validator.is_valid(schema):
        raise UsageError(f"{what} is not JSON Schema.")


def with_property(
    schema: Mapping[str, Any], name: str, part: Mapping[str, Any], *, required: bool = True
) -> dict[str, Any]:
    """``schema`` with ``part`` as its property ``name``.

    :raises UsageError: when there is such a property already
    """
    properties = schema.get("properties", {})
    if name in properties:
        raise UsageError(
            f"The host's input has a property {name!r} already; give the inserted flow's another"
            " name."
        )
    whole = {key: value for key, value in part.items() if key != "$schema"}
    result = {"type": "object", **schema}
    result["properties"] = {**properties, name: _nested(whole, name)}
    if required:
        result["required"] = [*schema.get("required", []), name]
    if isinstance(schema.get("propertyOrder"), list):
        result["propertyOrder"] = [*schema["propertyOrder"], name]
    return result


def _nested(value: Any, name: str) -> Any:
    """A part's schema as it reads one level down: references lead to its new place, and no format
    asks for a widget that would not show there."""
    if isinstance(value, list):
        return [_nested(item, name) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, item in value.items():
        if key == "format" and isinstance(item, str) and item.startswith(FORM_FORMATS):
            continue
        if key == "$ref" and isinstance(item, str) and item.startswith("#"):
            result[key] = f"#/properties/{name}{item[1:]}"
        else:
            result[key] = _nested(item, name)
    return result
