"""Whatever one hands it, compose answers with a flow or with a sentence; and what is moved into a
host means what it meant."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cib_flows.errors import UsageError
from cib_flows.flow import Part, compose, lint_definition
from cib_flows.flow.compose_paths import Places, rewritten
from cib_flows.flow_source import FlowSource
from cib_flows.local.flows import expressions
from cib_flows.local.flows.errors import StateError

from .test_anyones_flow import DEFINITIONS, SCHEMAS, VALUES, damaged

PACKAGED = FlowSource.packaged()
PART = Part(PACKAGED.definition, PACKAGED.input_schema, "container")
HOST = {"StartAt": "Rest", "States": {"Rest": {"Type": "Wait", "Seconds": 1, "End": True}}}


@settings(max_examples=120, deadline=None)
@given(damaged(DEFINITIONS), st.one_of(st.none(), damaged(SCHEMAS), VALUES), st.data())
def test_every_host_is_taken_or_refused_in_a_sentence(
    host: Any, schema: Any, data: st.DataObject
) -> None:
    states = host.get("States") if isinstance(host, dict) else None
    names = list(states) if isinstance(states, dict) and states else ["x"]
    at = data.draw(st.sampled_from([str(name) for name in names]))
    place: dict[str, Any] = {data.draw(st.sampled_from(["before", "after"])): at}
    refused = ""
    try:
        larger = compose(host, PART, schema=schema, **place)
    except UsageError as refusal:
        refused = refusal.message
    if refused:
        assert refused.endswith(".")
        assert "\n" not in refused
    else:
        remarks, _ = lint_definition(larger.definition, larger.input_schema)
        assert not any(remark.severity == "error" for remark in remarks)


@settings(max_examples=80, deadline=None)
@given(damaged(DEFINITIONS), st.one_of(damaged(SCHEMAS), VALUES))
def test_every_part_is_taken_or_refused_in_a_sentence(definition: Any, schema: Any) -> None:
    refused = "Taken."
    try:
        compose(HOST, Part(definition, schema), before="Rest")
    except UsageError as refusal:
        refused = refusal.message
    assert refused.endswith(".")
    assert "\n" not in refused


# --- expressions ----------------------------------------------------------------------------------

DOCUMENT: dict[str, Any] = {
    "a": "some/text",
    "b": {"c": 3, "d": [1, 2, {"e": "é"}], "keys": "own"},
    "items": [3, 1],
    "xs": [{"y": 1}, {"y": 2}],
    "true_one": True,
    "nothing": None,
}
CONTEXT = {"run_id": "7a2b8f0e"}
LEAVES = [
    *("a", "b", "b.c", "b.d[2].e", "b['keys']", "items", "items[0]", "xs[-1].y", "true_one"),
    *("nothing", "missing", "_context.run_id", "`$.b.d[1]`", "`$._context.run_id`"),
    *("getattr('b.c', default=1)", 'getattr("b.nope", default=a)', "is_present('xs[0].y')"),
    *("is_present('$.b.d')", "'a b c'", '"it\'s é a"', "'`$.a`'", "7", "True", "None", "[]"),
    *("len(items)", "str(b.c)", "a.split('/')", "a.rstrip('t')", "pathsplit(a)[1]"),
]


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def pair(text: str) -> st.SearchStrategy[str]:
        return st.tuples(inner, inner).map(lambda two: text.format(*two))

    return st.one_of(
        *(pair(text) for text in ("({} + {})", "({} == {})", "[{}, {}]", "({} or {})")),
        *(pair(text) for text in ("({} in {})", "{{'k': {}, 'a': {}}}", "(not {} and {})")),
        pair("[x for x in {} if x != {}]"),
        pair("[a for a in {}] + [{}]"),
        pair("{{'n': [b.y for b in xs], 'm': {}, 'o': {}}}"),
        pair("(\n  {}\n  if true_one else {})"),
    )


EXPRESSIONS = st.recursive(st.sampled_from(LEAVES), combined, max_leaves=6)


@settings(max_examples=400, deadline=None)
@given(EXPRESSIONS)
def test_every_expression_means_the_same_inside_a_host(expression: str) -> None:
    places = Places(("Host", "items"), {"xs": ("out", "keys")})
    state = {"Type": "ExpressionEval", "Parameters": {"v.=": expression}, "ResultPath": "$.v"}
    moved = rewritten(state, places, {})["Parameters"]["v.="]
    inside = {
        # what is not moved must not be found
        **dict.fromkeys(DOCUMENT, "the host's own"),
        "Host": {"items": {key: value for key, value in DOCUMENT.items() if key != "xs"}},
        "out": {"keys": DOCUMENT["xs"]},
    }
    assert value_of(moved, inside) == value_of(expression, DOCUMENT)


def value_of(expression: str, document: dict[str, Any]) -> Any:
    try:
        return expressions.evaluate(expression, document, CONTEXT)
    except StateError:
        return "it fails"
