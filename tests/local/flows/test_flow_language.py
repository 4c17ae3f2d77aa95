"""Expressions, paths, Parameters and Choice rules, each without a run around it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cib_flows.local.flows import choice, expressions, parameters, paths
from cib_flows.local.flows.errors import StateError

CONTEXT = {"run_id": "r-1", "username": "a@example.org", "email": None}
DOCUMENT: dict[str, Any] = {
    "a": {"b": [1, {"c": 2}], "b-c": 3, "with space": 4},
    "items": [{"name": "x", "size": 2}, {"name": "y", "size": 5}],
    "path": "/~/data/file.h5",
    "flag": True,
    "nothing": None,
    "number": 7,
}


def value(expression: str, document: Any = DOCUMENT) -> Any:
    return expressions.evaluate(expression, document, CONTEXT)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a.b[1].c", 2),
        ("a['b'][-1]['c']", 2),
        ("_context.run_id + '/' + str(number)", "r-1/7"),
        ("_context.email or _context.username", "a@example.org"),
        ("`$.a.b[0]` + 1", 2),
        ("`$.a['with space']`", 4),
        ("'a `quoted` backtick'", "a `quoted` backtick"),
        ("getattr('a.b[0]')", 1),
        ("getattr('a.z', default='none')", "none"),
        ("getattr('a.z', 5)", 5),
        ("getattr('a.z')", None),
        ("getattr('nothing', default=5)", None),
        ("getattr('_context.run_id')", "r-1"),
        ("is_present('a.b[1].c')", True),
        ("is_present('a.b[2]')", False),
        ("is_present('nothing')", True),
        ("pathsplit('/foo/bar/blech')", ["/foo/bar", "blech"]),
        ("pathsplit('/~/path')", ["/~/", "path"]),
        ("len(a.b) * 2 == 4 and not flag", False),
        ("'yes' if flag else 'no'", "yes"),
        ("[i.name for i in `$.items` if i.size > 2]", ["y"]),
        ("[i['name'] for i in getattr('items')]", ["x", "y"]),
        ("path.rstrip('/').split('/')[-1].endswith('.h5')", True),
        ("path.rpartition('/')[0]", "/~/data"),
        ("'x' not in ['y', 'z']", True),
        ("{'deep': [number, {'more': flag}]}", {"deep": [7, {"more": True}]}),
        ("int('12') + int(1.9)", 13),
        ("f'{number} of {a.b[0]}'", "7 of 1"),
        ("a.get('z', 3)", 3),
    ],
)
def test_expression_gives(expression: str, expected: Any) -> None:
    assert value(expression) == expected


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("nope", "no name 'nope'"),
        ("null", "write None"),
        ("a.z", "no 'z'"),
        ("a['z']", "no key 'z'"),
        ("nope(1)", "no function 'nope'"),
        ("1 +", "cannot be read"),
        ("a = 1", "cannot be read"),
        ("1; 2", "cannot be read"),
        ("", "cannot be read"),
        ("`$.z`", "$.z matches nothing"),
        ("a.items()", "not JSON"),
        ("{1: 2}", "the key 1 is not a string"),
        ("1 / 0", "division by zero"),
        ("float('inf')", "not a finite number"),
        ("'%d' % 1", "does not format text"),
    ],
)
def test_a_wrong_expression_is_explained(expression: str, words: str) -> None:
    with pytest.raises(StateError) as error:
        value(expression)
    assert words in error.value.cause


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__",
        "a.__class__",
        "path.format(1)",
        "(lambda: 1)()",
        "[len][0](path)",
        "open('/etc/passwd')",
        "path.encode()",
        "getattr(a, '__class__')",
        "list(a)",
    ],
)
def test_nothing_beyond_the_language_is_reachable(expression: str) -> None:
    with pytest.raises(StateError):
        value(expression)


@pytest.mark.parametrize(
    "expression", ["a.pop('b')", "a.clear()", "a.update({'z': 1})", "a.b.append(1)"]
)
def test_an_expression_cannot_change_the_document(expression: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    with pytest.raises(StateError):
        value(expression, document)
    assert document == DOCUMENT


@pytest.mark.parametrize(
    "expression",
    [
        "9 ** 9 ** 9",
        "'x' * 10 ** 9",
        "[0] * 10 ** 9",
        "[[0] * 100000] * 100000",
        "str([[0] * 100000] * 100000)",
        "[[0] * 100000] * 100000 == [[0] * 100000] * 100000",
        "[x * y for x in [1] * 9999 for y in [1] * 9999]",
        "','.join(['x' * 10000] * 10000)",
        "('x' * 1000).replace('x', 'y' * 100000)",
        "int('9' * 100000)",
        "['x' * 200000 for i in [1] * 10000]",
        "[f'{long}{long}' for long in ['x' * 40000] for i in [1] * 10000]",
        "[long[1:] for long in ['x' * 100000] for i in [1] * 10000]",
        "[long.upper() for long in ['x' * 100000] for i in [1] * 10000]",
        "[long.split('x') for long in ['x' * 100000] for i in [1] * 10000]",
        "f'{1:>1000000000}'",
        "(" * 90 + "1" + ")" * 90 + " + 1" * 200,
        "1" + " + 1" * 20000,
    ],
)
def test_an_expression_that_would_take_for_ever_is_stopped(expression: str) -> None:
    """With no limit each of these takes minutes or gigabytes; the test's own time limit is the judge."""
    with pytest.raises(StateError):
        value(expression)


def test_work_on_a_large_document_is_limited() -> None:
    document = {"big": list(range(30_000))}
    with pytest.raises(StateError) as error:
        value("[i for i in [1] * 9000 if big == [0]]", document)
    assert "too much work" in error.value.cause


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", DOCUMENT),
        ("$.a.b[1].c", 2),
        ("$.a.b[-1]['c']", 2),
        ("$.a.b-c", 3),
        ("$['a']['with space']", 4),
        ("$.items[*].name", ["x", "y"]),
        ("$.items[?@.size > 2].name", ["y"]),
        ("$..size", [2, 5]),
        ("$.nothing", None),
        ("$._context.run_id", "r-1"),
    ],
)
def test_path_reads(path: str, expected: Any) -> None:
    assert paths.read(path, DOCUMENT, CONTEXT) == expected


def test_a_path_without_a_match_is_named() -> None:
    with pytest.raises(StateError) as error:
        paths.read("$.a.z", DOCUMENT)
    assert error.value.error == "States.ParameterPathFailure"
    assert "$.a.z" in error.value.cause


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", 9),
        ("$.new", {**DOCUMENT, "new": 9}),
        ("$.new.deep.er", {**DOCUMENT, "new": {"deep": {"er": 9}}}),
        ("$.a.b[1].c", {**DOCUMENT, "a": {**DOCUMENT["a"], "b": [1, {"c": 9}]}}),
        ("$.a.b[-2]", {**DOCUMENT, "a": {**DOCUMENT["a"], "b": [9, {"c": 2}]}}),
        ("$['new one']", {**DOCUMENT, "new one": 9}),
    ],
)
def test_result_path_writes_into_a_copy(path: str, expected: Any) -> None:
    before = copy.deepcopy(DOCUMENT)
    assert paths.write(path, DOCUMENT, 9) == expected
    assert before == DOCUMENT


@pytest.mark.parametrize("path", ["$.number.x", "$.a.b[5]", "$.a.b.c", "$.new[0]"])
def test_result_path_that_leads_nowhere(path: str) -> None:
    with pytest.raises(StateError) as error:
        paths.write(path, DOCUMENT, 9)
    assert error.value.error == "States.ResultPathMatchFailure"


@pytest.mark.parametrize(
    "path", ["$.a[*]", "$..a", "$.a[0:1]", "$.a[?@.b]", "$._context.x", "a.b", 7, "$.a b"]
)
def test_what_cannot_be_a_result_path(path: Any) -> None:
    assert paths.reference_path_problem(path) is not None


names = st.text(st.characters(categories=["L", "N", "P", "Z"]), min_size=1, max_size=8)


@given(
    st.lists(
        names.filter(lambda name: "'" not in name and "\\" not in name), min_size=1, max_size=4
    ).filter(lambda steps: steps[0] != "_context")  # which is read-only
)
@example(["..", ".."])
def test_what_was_written_is_read_back(steps: list[str]) -> None:
    path = "$" + "".join(f"['{step}']" for step in steps)
    assert paths.read(path, paths.write(path, {}, "value")) == "value"


# --- Parameters -----------------------------------------------------------------------------------


def test_parameters_are_filled_at_any_depth() -> None:
    template = {
        "constant": {"x.y": [1, "$.a"]},
        "tasks": [
            {"id.$": "$.a.b[0]", "arguments": [{"run.=": "_context.run_id"}, {"n.$": "$.number"}]}
        ],
    }
    used, shown = parameters.build(template, DOCUMENT, CONTEXT)
    assert used == {
        "constant": {"x.y": [1, "$.a"]},
        "tasks": [{"id": 1, "arguments": [{"run": "r-1"}, {"n": 7}]}],
    }
    assert shown == used


def test_private_parameters_are_used_but_not_shown() -> None:
    template = {
        "__Private_Parameters": ["password", "token.$"],
        "password": "secret",
        "token.$": "$.path",
        "inner": {"__Private_Parameters": ["key"], "key.=": "number", "open": 1},
        "_private_note": "hidden",
    }
    used, shown = parameters.build(template, DOCUMENT, CONTEXT)
    assert used == {
        "password": "secret",
        "token": "/~/data/file.h5",
        "inner": {"key": 7, "open": 1},
        "_private_note": "hidden",
    }
    assert shown == {"inner": {"open": 1}}


# --- Choice ---------------------------------------------------------------------------------------

RULES: list[tuple[dict[str, Any], bool]] = [
    ({"Variable": "$.number", "NumericEquals": 7}, True),
    ({"Variable": "$.number", "NumericLessThan": 7}, False),
    ({"Variable": "$.number", "NumericLessThanEquals": 7.0}, True),
    ({"Variable": "$.number", "NumericGreaterThanPath": "$.a.b[0]"}, True),
    ({"Variable": "$.number", "StringEquals": "7"}, False),
    ({"Variable": "$.flag", "NumericEquals": 1}, False),
    ({"Variable": "$.flag", "BooleanEquals": True}, True),
    ({"Variable": "$.flag", "BooleanEqualsPath": "$.flag"}, True),
    ({"Variable": "$.number", "BooleanEquals": True}, False),
    ({"Variable": "$.path", "StringMatches": "/~/*/*.h5"}, True),
    ({"Variable": "$.path", "StringMatches": "*.h"}, False),
    ({"Variable": "$.path", "StringMatches": "/~/data/file.h5"}, True),
    ({"Variable": "$.star", "StringMatches": "a\\*b"}, True),
    ({"Variable": "$.path", "StringMatches": "a\\*b"}, False),
    ({"Variable": "$.path", "StringGreaterThan": "/a"}, True),
    ({"Variable": "$.time", "TimestampLessThan": "2026-01-02T03:04:06Z"}, True),
    ({"Variable": "$.time", "TimestampEquals": "2026-01-02T04:04:05.1+01:00"}, True),
    ({"Variable": "$.time", "TimestampEqualsPath": "$.path"}, False),
    ({"Variable": "$.zzz", "IsPresent": False}, True),
    ({"Variable": "$.nothing", "IsPresent": True}, True),
    ({"Variable": "$.nothing", "IsNull": True}, True),
    ({"Variable": "$.number", "IsNull": False}, True),
    ({"Variable": "$.number", "IsNumeric": True}, True),
    ({"Variable": "$.flag", "IsNumeric": False}, True),
    ({"Variable": "$.path", "IsString": True}, True),
    ({"Variable": "$.flag", "IsBoolean": True}, True),
    ({"Variable": "$.time", "IsTimestamp": True}, True),
    ({"Variable": "$.path", "IsTimestamp": True}, False),
    ({"Variable": "$._context.run_id", "StringEquals": "r-1"}, True),
    (
        {
            "And": [
                {"Variable": "$.flag", "BooleanEquals": True},
                {"Variable": "$.number", "IsNull": True},
            ]
        },
        False,
    ),
    (
        {
            "Or": [
                {"Variable": "$.number", "IsNull": True},
                {"Variable": "$.flag", "BooleanEquals": True},
            ]
        },
        True,
    ),
    ({"Not": {"Variable": "$.flag", "BooleanEquals": True}}, False),
]
CHOICE_DOCUMENT = {**DOCUMENT, "time": "2026-01-02T03:04:05.100Z", "star": "a*b"}


def chosen(rule: dict[str, Any], warnings: list[str]) -> str | None:
    state = {"Choices": [{**rule, "Next": "Yes"}], "Default": "No"}
    return choice.choose(state, CHOICE_DOCUMENT, CONTEXT, warnings)


@pytest.mark.parametrize(("rule", "holds"), RULES, ids=[str(rule) for rule, _ in RULES])
def test_rule(rule: dict[str, Any], holds: bool) -> None:
    warnings: list[str] = []
    assert chosen(rule, warnings) == ("Yes" if holds else "No")
    assert warnings == []


def test_the_first_rule_that_holds_wins_and_none_is_no_state() -> None:
    rule = {"Variable": "$.flag", "BooleanEquals": True}
    state = {"Choices": [{**rule, "Next": "First"}, {**rule, "Next": "Second"}]}
    assert choice.choose(state, DOCUMENT, CONTEXT, []) == "First"
    assert choice.choose(state, {"flag": False}, CONTEXT, []) is None


@pytest.mark.parametrize(
    "rule",
    [
        {"Variable": "$.zzz", "NumericEquals": 1},
        {"Variable": "$.number", "NumericEqualsPath": "$.zzz"},
        {"Variable": "$.zzz", "IsString": False},
    ],
)
def test_a_missing_value_holds_nothing_and_is_warned_about(rule: dict[str, Any]) -> None:
    warnings: list[str] = []
    assert chosen(rule, warnings) == "No"
    assert "$.zzz matches nothing" in warnings[0]


def test_a_pattern_of_many_wildcards_is_quick() -> None:
    state = {
        "Choices": [{"Variable": "$.x", "StringMatches": "*a" * 40 + "*b", "Next": "Yes"}],
        "Default": "No",
    }
    assert choice.choose(state, {"x": "a" * 5000}, CONTEXT, []) == "No"
