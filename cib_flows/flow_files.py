"""A flow's definition and input schema as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cib_flows.errors import UsageError
from cib_flows.flow.linter import schema_beside
from cib_flows.flow.source import Unparsable, read_source

__all__ = ["read_flow", "read_object", "schema_file_for"]


def read_flow(
    path: str | Path, schema_path: str | Path | None = None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The definition and the input schema (None: there is none) in a JSON or YAML file, found as
    the linter finds them.

    Raises ``UsageError`` with one sentence.
    """
    path = Path(path)
    whole = read_object(path)
    found = Path(schema_path) if schema_path is not None else schema_beside(path)
    schema = read_object(found) if found is not None else None
    if "States" not in whole and "definition" in whole:
        schema = schema if schema is not None else whole.get("input_schema")
        whole = whole["definition"]
    if not isinstance(whole, dict) or not isinstance(schema, dict | None):
        raise UsageError(f"{path} holds no flow: definition and input schema are objects.")
    return whole, schema


def schema_file_for(definition: Path) -> Path:
    """Where the input schema of a definition is written: under the name by which the linter finds
    it, as far as the definition's own name allows."""
    if definition.stem.endswith("definition"):
        prefix = definition.stem.removesuffix("definition")
        return definition.with_name(f"{prefix}input_schema.json")
    return definition.with_name(f"{definition.stem}_input_schema.json")


def read_object(path: str | Path) -> dict[str, Any]:
    """The object in a JSON or YAML file.

    Raises ``UsageError`` with one sentence.
    """
    try:
        value = read_source(path).value
    except Unparsable as problem:
        at = problem.position
        raise UsageError(f"{path}:{at.line}:{at.column} is no JSON or YAML: {problem}.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} must hold an object.")
    return value
