"""What a CreateWebInput state asks: read from its parameters, and shown as the service shows it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import StateError

__all__ = ["GROUPS", "Question", "question_of"]

# The URNs of groups, as the API and as the official examples write them.
GROUPS = ("urn:globus:groups:id:", "urn:globus:group:id:")
STYLES = ("Table", "Text")
MAX_OPTIONS = 100


@dataclass(frozen=True)
class Question:
    """``context`` and ``options`` are as viewers see them; ``values`` what each option means in the
    flow, by its id."""

    context: dict[str, Any]
    options: list[dict[str, str]]
    values: dict[str, Any]
    respondents: list[str]
    viewers: list[str]

    @property
    def title(self) -> str:
        return str(self.context["title"])

    @property
    def readings(self) -> list[str]:
        """What was assumed where the local Globus cannot do as the service does."""
        groups = [urn for urn in self.respondents if urn.startswith(GROUPS)]
        if not groups:
            return []
        return [f"The local Globus has no groups: anybody may answer for {', '.join(groups)}."]

    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of an answer."""
        return {
            "$schema": "http://json-schema.org/draft-07/schema",
            "title": "Please select an option",
            "type": "string",
            "oneOf": [
                {
                    "const": option["option_id"],
                    "title": option["label"],
                    "description": option["description"],
                }
                for option in self.options
            ],
        }


def question_of(body: Any, web_input_id: str, asker: str) -> Question:
    """The question that ``body`` describes. Ids of its options follow from ``web_input_id``, so
    that a repeated call after a crash makes the same.

    :param asker: the URN that may answer where nobody is named
    :raises StateError: ``States.Runtime``, naming the field that is wrong
    """
    if not isinstance(body, dict):
        raise _wrong("the parameters", "an object", body)
    if body.get("InputType") != "Selection":
        raise _wrong("InputType", "'Selection'", body.get("InputType"))
    options: list[dict[str, str]] = []
    values: dict[str, Any] = {}
    for number, option in enumerate(_options(body)):
        option_id = str(uuid.uuid5(uuid.UUID(web_input_id), f"option {number}"))
        values[option_id] = option["Value"]
        options.append(
            {
                "option_id": option_id,
                "label": str(option.get("Label", option["Value"])),
                "description": str(option.get("Description", "")),
            }
        )
    return Question(
        _context(body.get("Context")),
        options,
        values,
        _urns(body, "RespondentUrns") or [asker],
        _urns(body, "ViewerUrns"),
    )


def _options(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    options = body.get("Options")
    if not isinstance(options, list) or not 1 <= len(options) <= MAX_OPTIONS:
        raise _wrong("Options", f"a list of 1 to {MAX_OPTIONS} options", options)
    for number, option in enumerate(options):
        if not isinstance(option, dict) or "Value" not in option:
            raise _wrong(f"Options[{number}]", "an object with a Value", option)
    return options


def _context(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _wrong("Context", "an object", given)
    style = given.get("PresentationStyle")
    if style not in STYLES:
        raise _wrong("Context.PresentationStyle", "'Table' or 'Text'", style)
    if not isinstance(given.get("Title"), str):
        raise _wrong("Context.Title", "a text", given.get("Title"))
    context: dict[str, Any] = {"title": given["Title"], "presentation_style": style.lower()}
    if style == "Text":
        if not isinstance(given.get("Text"), str):
            raise _wrong("Context.Text", "a text", given.get("Text"))
        return {**context, "text": given["Text"]}
    rows = given.get("Rows")
    if not isinstance(rows, list):
        raise _wrong("Context.Rows", "a list", rows)
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != {"Field", "Value"}:
            raise _wrong(f"Context.Rows[{number}]", "an object of Field and Value", row)
    shown = [{"field": str(row["Field"]), "value": _shown(row["Value"])} for row in rows]
    return {**context, "rows": shown}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _urns(body: Mapping[str, Any], name: str) -> list[str]:
    urns = body.get(name, [])
    if not isinstance(urns, list) or not all(
        isinstance(urn, str) and urn.startswith("urn:globus:") for urn in urns
    ):
        raise _wrong(name, "a list of URNs of identities and groups", urns)
    return urns


def _wrong(field: str, expected: str, value: Any) -> StateError:
    shown = repr(value)
    shown = shown if len(shown) <= 100 else shown[:100] + "…"
    return StateError("States.Runtime", f"A web input needs {expected} as {field}, not {shown}.")
