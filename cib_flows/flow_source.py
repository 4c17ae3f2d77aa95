"""The flow as its files say it, and how a deployment fills its placeholders."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from cib_flows.errors import CibFlowsError

__all__ = ["BUILD_FLOW", "FLOWS", "PUBLISH_FLOW", "FlowSource", "fill_placeholders"]

BUILD_FLOW = "build_container"
PUBLISH_FLOW = "publish_container"
# The first is what every deployment has; the others are deployed where somebody asks for them.
FLOWS = (BUILD_FLOW, PUBLISH_FLOW)
# Fields of a form whose default is the deployment's build endpoint.
ENDPOINT_FIELDS = ("build_endpoint", "source_endpoint")

PLACEHOLDER = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class FlowSource:
    """A flow as it lies in ``flows/NAME``, before a deployment fills it."""

    definition: dict[str, Any]
    input_schema: dict[str, Any]
    about: dict[str, Any]

    @classmethod
    def packaged(cls, name: str = BUILD_FLOW) -> FlowSource:
        """A flow that this version of cib-flows comes with; ``name`` is one of ``FLOWS``."""
        folder = resources.files("cib_flows.flows").joinpath(name)
        read = [
            json.loads(folder.joinpath(name).read_text(encoding="utf-8"))
            for name in ("definition.json", "input_schema.json", "flow.json")
        ]
        return cls(*read)

    @property
    def settings(self) -> dict[str, Any]:
        """The Settings state's parameters: placeholders, and the endpoint profiles that the steps
        ask for.
        """
        return dict(self.definition["States"]["Settings"]["Parameters"])

    @property
    def control_config(self) -> dict[str, Any]:
        """The ``user_endpoint_config`` for light steps, such as watching a run."""
        return dict(self.settings["control_config"])

    @property
    def build_config(self) -> dict[str, Any]:
        """The ``user_endpoint_config`` for steps that build or run images."""
        return dict(self.settings["build_config"])

    def filled(
        self, build_endpoint: str, run_endpoint: str, functions: Mapping[str, str]
    ) -> FlowSource:
        """The flow for these endpoints and function ids. Raises ``CibFlowsError`` for a placeholder
        that is left over.
        """
        fillings = {
            "<endpoint:build>": build_endpoint,
            "<endpoint:run>": run_endpoint,
            **{f"<function:{name}>": identifier for name, identifier in functions.items()},
        }
        schema = copy.deepcopy(self.input_schema)
        for field in ENDPOINT_FIELDS:
            if field in schema["properties"]:
                schema["properties"][field]["default"] = build_endpoint
        return FlowSource(
            definition=fill_placeholders(self.definition, fillings),
            input_schema=fill_placeholders(schema, fillings),
            about=self.about,
        )


def fill_placeholders(value: Any, fillings: dict[str, str]) -> Any:
    """A copy of ``value`` in which each string that is a placeholder, such as ``<endpoint:build>``,
    is filled.

    Raises ``CibFlowsError`` naming what is left over.
    """
    filled = _fill(copy.deepcopy(value), fillings)
    left = sorted({text for text in _strings(filled) if PLACEHOLDER.fullmatch(text)})
    if left:
        raise CibFlowsError(
            "The flow's definition has placeholders that this version cannot fill: "
            f"{', '.join(left)}."
        )
    return filled


def _fill(value: Any, fillings: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(inner, fillings) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, fillings) for inner in value]
    if isinstance(value, str):
        return fillings.get(value, value)
    return value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value
