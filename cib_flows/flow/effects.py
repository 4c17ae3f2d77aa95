"""What a state does to the shape of a run's document."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from . import expressions, paths
from .language import PRIVATE_PARAMETERS, bare
from .paths import CONTEXT, Step
from .shapes import (
    ANYTHING,
    LEAF,
    Field,
    Leaf,
    Listed,
    Object,
    Shape,
    join,
    literal,
    look_up,
    presume,
    write,
)

__all__ = ["ACTION_FIELDS", "catch_path", "outcomes", "refined", "replaces_document", "result_path"]

ACTION_FIELDS = (
    *("action_id", "status", "display_status", "details", "creator_id", "label", "manage_by"),
    *("monitor_by", "start_time", "completion_time", "release_after", "state_name"),
)
# Providers whose status document has these fields and no others; a flow that is run as an action
# answers with a run's.
_KNOWN_HOSTS = ("actions.globus.org", "compute.actions.globus.org", "transfer.actions.globus.org")
# What a caught error holds is not documented.
CAUGHT = Object({}, "perhaps")
_WRITING = frozenset({"Action", "Pass", "ExpressionEval", "CreateWebInput", "AwaitWebInput"})

State = Mapping[str, Any]


def result_path(state: State) -> tuple[Step, ...] | None:
    """Where ``state`` writes its result; None when it writes none, or to no place that can be
    told."""
    if state.get("Type") not in _WRITING:
        return None
    return _steps(state.get("ResultPath", "$"))


def catch_path(catcher: Mapping[str, Any]) -> tuple[Step, ...] | None:
    """Where a catcher writes the error."""
    return _steps(catcher.get("ResultPath", "$"))


def _steps(path: Any) -> tuple[Step, ...] | None:
    if paths.reference_path_problem(path) is not None:
        return None
    return tuple(paths.reference_steps(path) or ())


def replaces_document(state: State) -> bool:
    """Whether nothing that was in the document before stays in it."""
    if state.get("Type") == "Pass" and not {"Parameters", "InputPath", "Result"} & set(state):
        return False
    return result_path(state) == ()


def outcomes(state: State, shape: Shape) -> Iterator[tuple[str, Shape]]:
    """The states that may follow, each with the shape of the document it begins with."""
    kind = state.get("Type")
    after = shape
    steps = result_path(state)
    if steps is not None:
        after = write(shape, steps, _result(state, shape))
    if isinstance(state.get("Next"), str):
        yield state["Next"], after
    if kind == "Choice":
        yield from _choices(state, shape)
    for catcher in _dicts(state.get("Catch")):
        where = catch_path(catcher)
        if isinstance(catcher.get("Next"), str) and where is not None:
            yield catcher["Next"], write(shape, where, ANYTHING) if where else CAUGHT


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


# --- results --------------------------------------------------------------------------------------


def _result(state: State, shape: Shape) -> Shape:
    kind = state["Type"]
    if kind == "Action":
        url = state.get("ActionUrl")
        host = url.split("/")[2].lower() if isinstance(url, str) and url.count("/") > 1 else ""
        rest = "never" if host in _KNOWN_HOSTS else "there"
        return Object({name: Field(ANYTHING) for name in ACTION_FIELDS}, rest)  # type: ignore[arg-type]
    if kind in ("CreateWebInput", "AwaitWebInput"):
        return ANYTHING
    if kind == "Pass" and "Result" in state:
        return literal(state["Result"])
    if "Parameters" in state:
        return _template(state["Parameters"], shape)
    if "InputPath" in state:
        return _at(state["InputPath"], shape)
    return shape


def _at(path: Any, shape: Shape) -> Shape:
    if paths.path_problem(path) is not None:
        return ANYTHING
    steps = paths.reference_steps(path)
    if steps is None or steps[:1] == [CONTEXT]:
        return ANYTHING
    return look_up(shape, steps)


def _template(template: Any, shape: Shape) -> Shape:
    if isinstance(template, list):
        items = tuple(_template(item, shape) for item in template)
        return Listed(items, join(items))
    if not isinstance(template, dict):
        return LEAF
    fields = {}
    for key, item in template.items():
        if key == PRIVATE_PARAMETERS:
            continue
        if key.endswith(".$"):
            fields[bare(key)] = Field(_at(item, shape))
        elif key.endswith(".="):
            fields[bare(key)] = Field(_expression(item))
        else:
            fields[key] = Field(_template(item, shape))
    return Object(fields)


def _expression(expression: Any) -> Shape:
    """``is_present('x')`` is kept in mind, for the Choice that asks for it."""
    if expressions.expression_problem(expression) is not None:
        return ANYTHING
    tree, _ = expressions.parsed(expression)
    match tree:
        case ast.Call(
            func=ast.Name(id="is_present"), args=[ast.Constant(value=str(text))], keywords=[]
        ):
            path = text if text.startswith("$") else f"$.{text}"
            if paths.path_problem(path) is None:
                return Leaf(tuple(paths.leading_steps(path)))
    return ANYTHING


# --- choices --------------------------------------------------------------------------------------


def _choices(state: State, shape: Shape) -> Iterator[tuple[str, Shape]]:
    for rule in _dicts(state.get("Choices")):
        if isinstance(rule.get("Next"), str):
            yield rule["Next"], refined(shape, rule, True)
        shape = refined(shape, rule, False)
    if isinstance(state.get("Default"), str):
        yield state["Default"], shape


def refined(shape: Shape, rule: Any, holds: bool) -> Shape:
    """What is known besides when ``rule`` holds, or when it does not."""
    if not isinstance(rule, dict):
        return shape
    if "Not" in rule:
        return refined(shape, rule["Not"], not holds)
    if ("And" in rule and holds) or ("Or" in rule and not holds):
        for part in _dicts(rule.get("And" if holds else "Or")):
            shape = refined(shape, part, holds)
        return shape
    if "And" in rule or "Or" in rule:
        # One of the parts was decisive; which one is not known.
        word = "Or" if holds else "And"
        ways = []
        for part in _dicts(rule.get(word)):
            ways.append(refined(shape, part, holds))
            shape = refined(shape, part, not holds)
        return join(ways)
    variable = rule.get("Variable")
    if paths.path_problem(variable) is not None:
        return shape
    steps = tuple(paths.reference_steps(str(variable)) or ())
    if not steps or steps[0] == CONTEXT:
        return shape
    if isinstance(rule.get("IsPresent"), bool):
        return presume(shape, steps, rule["IsPresent"] is holds)
    if isinstance(rule.get("BooleanEquals"), bool):
        asked = look_up(shape, steps)
        if isinstance(asked, Leaf) and asked.means_present is not None:
            return presume(shape, asked.means_present, rule["BooleanEquals"] is holds)
    # Only a value that is there can make a comparison true.
    return presume(shape, steps, True) if holds else shape
