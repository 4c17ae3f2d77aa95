"""``compose``: a flow's states inserted into another flow, as if they had been written there.

The inserted states keep their names behind a prefix and their document under one field of the
host's, so that neither flow can touch what is the other's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cib_flows.errors import UsageError

from . import paths
from .compose_part import (
    INPUT,
    Part,
    fields_read,
    fields_written,
    inserted_states,
    problem_sentence,
)
from .compose_paths import shown_path
from .compose_schema import require_schema, with_property
from .effects import catch_path, result_path
from .findings import Remark
from .linter import lint_definition
from .rules_schema import schema_remarks

__all__ = ["Composition", "Part", "compose", "contained"]

PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
MAX_STATE_BYTES = 200_000
UNSAID = "The inserted flow failed and gave no reason."

States = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Composition:
    """The larger flow. ``remarks`` is what the linter says about it."""

    definition: dict[str, Any]
    input_schema: dict[str, Any]
    remarks: list[Remark] = field(default_factory=list)


def compose(
    host: Mapping[str, Any],
    part: Part,
    *,
    before: str | None = None,
    after: str | None = None,
    schema: Mapping[str, Any] | None = None,
    prefix: str = "Build",
    inputs: str | Mapping[str, Any] | None = None,
    input_property: str = "container_spec",
    output: str = "$.container",
    on_failure: str | None = None,
    failure: str = "$.build_failure",
) -> Composition:
    """Insert ``part`` into ``host``; both are left as they are, and the same arguments always give
    the same flow.

    :param before: the host's state that every way to now leads through the part first
    :param after: the host's state whose ``Next`` or ``End`` now leads to the part first
    :param schema: the host's input schema
    :param prefix: stands before the names of the inserted states, and is the field that holds
        their document
    :param inputs: the part's input: a path to an object in the host's document, or a template as
        in ``Parameters``; None makes ``input_property`` a property of the input schema
    :param output: where the part's result goes in the host's document
    :param on_failure: the host's state to go on with when the part fails; None fails the run
    :param failure: where ``error`` and ``cause`` go then
    :raises UsageError: with one sentence, when the flows do not fit together
    """
    states = _sound_states(host)
    require_schema(schema or {}, "The host's input schema")
    _require_prefix(prefix)
    at = _place(states, before, after)
    if on_failure is not None and on_failure not in states:
        raise UsageError(f"The host has no state {on_failure!r} to go to after a failure.")
    target = _free_place("output", output, prefix, host, schema)
    caught = _free_place("failure", failure, prefix, host, schema) if on_failure else None
    if caught is not None and _overlap(target, caught):
        raise UsageError(f"The output {output} and the failure {failure} are the same place.")
    require_schema(part.input_schema, "The input schema of the flow to insert")
    given, merged = _given(inputs, input_property, part, schema)

    inserted = _inserted(part, prefix, target, given)
    if on_failure is not None and caught is not None:
        _lead_on(inserted, on_failure, shown_path(caught))
    taken = sorted(set(inserted) & set(states))
    if taken:
        raise UsageError(
            f"The host has a state {taken[0]!r} already; choose another prefix than {prefix!r}."
        )
    begin, end = f"{prefix}Input", f"{prefix}Tidy"
    wired, start = _wired(host, at, begin, is_before=before is not None)
    inserted[end].update({"Next": at} if before else _way_on(states[at]))
    definition = {**host, "StartAt": start, "States": _ordered(wired, inserted, at, bool(before))}
    remarks = _checked(definition, merged)
    # A template leaves out what the inserted flow need not be given, and it asks for that.
    asked = {("States", name) for name in inserted}
    remarks = [r for r in remarks if r.code != "always-absent" or r.place[:2] not in asked]
    return Composition(definition, merged, remarks)


def contained(
    part: Part, inputs: str | Mapping[str, Any], prefix: str = "Build", output: str = "$.container"
) -> dict[str, Any]:
    """The definition of ``part`` as ``compose`` would insert it, for tools that chain flows
    themselves: it begins with the state ``…Input`` and ends with ``…Tidy``.

    :raises UsageError: with one sentence, when it cannot be had so
    """
    _require_prefix(prefix)
    require_schema(part.input_schema, "The input schema of the flow to insert")
    given, _ = _given(inputs, "", part, None)
    states = _inserted(part, prefix, _names_in("output", output, prefix), given)
    states[f"{prefix}Tidy"]["End"] = True
    return {"StartAt": f"{prefix}Input", "States": states}


# --- what is refused ------------------------------------------------------------------------------


def _sound_states(host: Mapping[str, Any]) -> States:
    # A state that only a failure leads to is reached once the part is there.
    problem = problem_sentence(host, ignored=("unreachable-state",))
    if problem is not None:
        raise UsageError(f"The host flow is not sound: {problem}.")
    size = len(json.dumps(host))
    if size > MAX_STATE_BYTES:
        raise UsageError(
            f"The host flow has {size} bytes, and its runs may hold {MAX_STATE_BYTES}."
        )
    states: States = host["States"]
    return states


def _require_prefix(prefix: str) -> None:
    if not PREFIX.fullmatch(prefix):
        raise UsageError(
            f"The prefix {prefix!r} must begin with a letter and hold at most 64 letters, digits"
            " and underscores."
        )


def _place(states: Mapping[str, Any], before: str | None, after: str | None) -> str:
    if (before is None) == (after is None):
        raise UsageError("Say where to insert: before one state of the host, or after one.")
    at = str(before if before is not None else after)
    if at not in states:
        raise UsageError(f"The host has no state {at!r}; it has {', '.join(sorted(states))}.")
    if after is not None and not {"Next", "End"} & set(states[at]):
        raise UsageError(
            f"The host's state {at!r} has no single way on; insert before the state that is meant."
        )
    return at


def _free_place(
    what: str,
    path: str,
    prefix: str,
    host: Mapping[str, Any],
    schema: Mapping[str, Any] | None,
) -> tuple[str, ...]:
    """The steps of a path to which the part may write, where the host does not."""
    place = _names_in(what, path, prefix)
    for name, state in host["States"].items():
        written = [result_path(state), *(catch_path(item) for item in state.get("Catch", ()))]
        if any(other and _overlap(place, other) for other in written):
            raise UsageError(f"The host's state {name!r} writes to the {what} {path} too.")
        if prefix in {*fields_written(state), *fields_read(state)}:
            raise UsageError(
                f"The host's state {name!r} uses $.{prefix}, which the inserted flow needs for"
                " itself; choose another prefix."
            )
    properties = (schema or {}).get("properties", {})
    for name in (prefix, *(place if len(place) == 1 else ())):
        if name in properties:
            raise UsageError(
                f"The host's input has a property {name!r}, which the inserted flow would replace."
            )
    return place


def _names_in(what: str, path: str, prefix: str) -> tuple[str, ...]:
    problem = paths.reference_path_problem(path)
    steps = [] if problem else paths.reference_steps(path) or []
    if problem or not steps or not all(isinstance(step, str) for step in steps):
        raise UsageError(f"The {what} {path!r} must be a path of names, such as $.container.")
    if steps[0] == prefix:
        raise UsageError(f"The {what} {path} lies in $.{prefix}, which is the inserted flow's own.")
    return tuple(str(step) for step in steps)


def _overlap(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    common = min(len(first), len(second))
    return first[:common] == second[:common]


# --- the input ------------------------------------------------------------------------------------


def _given(
    inputs: str | Mapping[str, Any] | None,
    name: str,
    part: Part,
    schema: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the first state gives the part, as Parameters, and the larger flow's schema."""
    merged = dict(schema or {})
    if inputs is None:
        if not PREFIX.fullmatch(name):
            raise UsageError(f"The input property {name!r} must be a name such as container_spec.")
        return {f"{INPUT}.$": f"$.{name}"}, with_property(merged, name, part.input_schema)
    if isinstance(inputs, str):
        problem = paths.path_problem(inputs)
        if problem is not None:
            raise UsageError(f"The inputs are no path: {problem}.")
        return {f"{INPUT}.$": inputs}, merged
    return {INPUT: dict(inputs)}, merged


# --- putting together -----------------------------------------------------------------------------


def _inserted(part: Part, prefix: str, target: tuple[str, ...], given: dict[str, Any]) -> States:
    problem = problem_sentence(part.definition)
    if problem is not None:
        raise UsageError(f"The flow to insert is not sound: {problem}.")
    names = {name: prefix + name for name in part.definition["States"]}
    states = inserted_states(part, prefix, target, names)
    clash = {f"{prefix}Input", f"{prefix}Tidy"} & set(states)
    if clash:
        raise UsageError(f"The flow cannot be inserted: it has a state {min(clash)!r} itself.")
    for state in states.values():
        if state.pop("End", False):
            state["Next"] = f"{prefix}Tidy"
    begin = {
        "Comment": "What the inserted flow is given. Its states keep their document here.",
        "Type": "ExpressionEval",
        "Parameters": given,
        "ResultPath": f"$.{prefix}",
        "Next": names[part.definition["StartAt"]],
    }
    end = {
        "Comment": "What the inserted flow no longer needs does not count against the run's 200 KB.",
        "Type": "Pass",
        "Parameters": {"done": True},
        "ResultPath": f"$.{prefix}",
    }
    return {f"{prefix}Input": begin, **states, f"{prefix}Tidy": end}


def _lead_on(states: States, on_failure: str, failure: str) -> None:
    """Lead what would fail the run to a state of the host instead."""
    for name, state in states.items():
        if state["Type"] == "Fail":
            states[name] = {
                "Comment": "Why the inserted flow failed, for the states that go on with it.",
                "Type": "ExpressionEval",
                "Parameters": {
                    **_said("error", state, "Error", "States.Failed"),
                    **_said("cause", state, "Cause", UNSAID),
                },
                "ResultPath": failure,
                "Next": on_failure,
            }


def _said(name: str, state: Mapping[str, Any], field_name: str, default: str) -> dict[str, Any]:
    path = state.get(f"{field_name}Path")
    if path is None:
        return {name: state.get(field_name, default)}
    # A path that matches nothing would fail the run after all.
    return {f"{name}.=": f"getattr({path.removeprefix('$.')!r}, default={default!r})"}


def _way_on(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: state[key] for key in ("Next", "End") if key in state}


def _wired(host: Mapping[str, Any], at: str, begin: str, *, is_before: bool) -> tuple[States, str]:
    """The host's states with their ways led to the part, and where runs start."""
    states: States = json.loads(json.dumps(host["States"]))
    if not is_before:
        states[at].pop("End", None)
        states[at]["Next"] = begin
        return states, host["StartAt"]
    for state in states.values():
        for holder in (state, *state.get("Choices", ()), *state.get("Catch", ())):
            for key in ("Next", "Default"):
                if holder.get(key) == at:
                    holder[key] = begin
    return states, begin if host["StartAt"] == at else host["StartAt"]


def _ordered(host: States, inserted: States, at: str, is_before: bool) -> States:
    """The states in the order in which a reader meets them."""
    result: States = {}
    for name, state in host.items():
        if name == at and is_before:
            result.update(inserted)
        result[name] = state
        if name == at and not is_before:
            result.update(inserted)
    return result


def _checked(definition: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Remark]:
    """What the linter says about the larger flow.

    :raises UsageError: for what the service would refuse
    """
    problem = problem_sentence(definition)
    if problem is not None:
        raise UsageError(f"The larger flow would not be sound: {problem}.")
    remarks, _ = lint_definition(definition, schema or None)
    return [*remarks, *schema_remarks(schema)]
