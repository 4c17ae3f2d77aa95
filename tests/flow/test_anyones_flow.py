"""Whatever a file holds, the linter answers with findings and the drawing with a sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cib_flows
from cib_flows.errors import UsageError
from cib_flows.flow import lint_definition
from cib_flows.flow.diagram import diagram
from cib_flows.flow.rules_schema import schema_remarks
from cib_flows.flow.source import Unparsable, parse
from cib_flows.flow.svg import svg
from cib_flows.flow.text_drawings import dot, mermaid

HERE = Path(__file__).parent / "definitions"
OURS = Path(cib_flows.__file__).parent / "flows" / "build_container"
DEFINITIONS = [
    json.loads(path.read_text())
    for path in [OURS / "definition.json", *sorted(HERE.glob("*_definition.json"))]
]
SCHEMAS = [
    json.loads(path.read_text())
    for path in [OURS / "input_schema.json", *sorted(HERE.glob("*_schema.json"))]
]

WORDS = st.sampled_from(
    [
        *("$", "$.", "$.a", "$..", "$[0]", "$.a[*]", "$.a[?@.b]", "$._context.run_id", "a.b[0]"),
        *("is_present('x')", "getattr('', default=1)", "`$.a`.b", "[i for i in x]", "x[y[z]]"),
        *("https://", "https://[", "https://compute.actions.globus.org/v3", "Only", "Done", ""),
    ]
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.floats(allow_nan=False), WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    *("Type", "Next", "End", "And", "Or", "Not", "Variable", "IsPresent", "a.$"),
                    *("a.=", "Catch", "Choices", "$ref", "type", "properties", "format", "allOf"),
                    *("__Private_Parameters", "tasks", "ErrorEquals", "ResultPath", "required"),
                ]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [place] if place else []
    entries = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in entries:
        found += places(item, (*place, key))
    return found


@st.composite
def damaged(draw: st.DrawFn, sound: list[Any]) -> Any:
    """One of the ``sound`` documents with a few parts replaced or gone."""
    document = copy.deepcopy(draw(st.sampled_from(sound)))
    for _ in range(draw(st.integers(1, 4))):
        *way, key = draw(st.sampled_from(places(document) or [("none",)]))
        holder = document
        for step in way:
            holder = holder[step]
        if not isinstance(holder, (dict, list)):
            continue
        if draw(st.booleans()):
            holder[key] = draw(VALUES)
        elif isinstance(holder, dict):
            holder.pop(key, None)
    return document


@settings(max_examples=150, deadline=None)
@given(damaged(DEFINITIONS), st.one_of(st.none(), damaged(SCHEMAS), VALUES))
def test_every_definition_is_answered_with_findings(definition: Any, schema: Any) -> None:
    found, _ = lint_definition(definition, schema)
    for said in found:
        assert said.message.endswith(".")
        assert said.advice.endswith(".")
        assert "\n" not in said.message


@settings(max_examples=150, deadline=None)
@given(st.one_of(damaged(SCHEMAS), VALUES))
def test_every_schema_is_answered_with_findings(schema: Any) -> None:
    for said in schema_remarks(schema):
        assert said.message
        assert said.advice


@settings(max_examples=150, deadline=None)
@given(damaged(DEFINITIONS))
def test_every_definition_is_drawn_or_refused_in_a_sentence(definition: Any) -> None:
    drawn = []
    refused = ""
    try:
        content = diagram(definition)
        drawn = [draw(content, "A flow") for draw in (svg, mermaid, dot)]
    except UsageError as refusal:
        refused = refusal.message
    assert all(drawn) if drawn else refused.endswith(".")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='{}[]":, \n\\ab1-.eu0&*!<?|>\t', max_size=40), st.booleans())
def test_every_text_is_read_or_refused_at_a_line(text: str, as_json: bool) -> None:
    line = 1
    try:
        json.dumps(parse(text, as_json=as_json).value)
    except Unparsable as refusal:
        line = refusal.position.line
    assert 1 <= line <= text.count("\n") + 2


@pytest.mark.parametrize("value", [None, [], "x", 3, {}, {"States": {}}, {"States": {"A": {}}}])
def test_what_is_no_definition_at_all(value: Any) -> None:
    found, _ = lint_definition(value)
    assert {said.severity for said in found} == {"error"}
