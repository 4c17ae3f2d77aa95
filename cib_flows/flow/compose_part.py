"""A flow that is inserted into others: which fields its states share, and which are its input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cib_flows.errors import UsageError

from . import paths
from .compose_paths import Places, State, rewritten
from .definition import definition_problems
from .effects import catch_path, replaces_document, result_path
from .graph import targets
from .language import OPERATORS
from .reads import state_reads

__all__ = ["Part", "fields_read", "fields_written", "inserted_states", "problem_sentence"]

# Where the inserted states find what the host gave them, inside their own document.
INPUT = "input"


@dataclass(frozen=True)
class Part:
    """A flow for inserting: ``result`` is the field of its document that holds what it is run for,
    or empty."""

    definition: Mapping[str, Any]
    input_schema: Mapping[str, Any]
    result: str = ""


def problem_sentence(definition: Any, ignored: tuple[str, ...] = ()) -> str | None:
    """The first thing that the service would refuse about a definition, or None."""
    for problem in definition_problems(definition):
        if problem.code not in ignored:
            place = ".".join(str(step) for step in problem.place[1:])
            return f"{place or 'the definition'}: {problem.message}"
    return None


def inserted_states(
    part: Part, key: str, output: tuple[str, ...], names: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The part's states under their new ``names``, with their document at ``$.key``, their input at
    ``$.key.input`` and their result at ``output``.

    :raises UsageError: when the part cannot be inserted
    """
    states: Mapping[str, State] = part.definition["States"]
    early = _before_replacement(part.definition["StartAt"], states)
    late = _after_replacement(states)
    both = sorted(early & late)
    if both:
        raise UsageError(
            f"The flow cannot be inserted: its state {both[0]!r} runs both before and after its"
            " document is replaced."
        )
    moved = {part.result: output} if part.result else {}
    # Until the document is replaced, what no state has written is the input.
    written = {name for state in early for name in fields_written(states[state])}
    if part.result in written and late:
        raise UsageError(f"The flow cannot be inserted: it replaces its result {part.result!r}.")
    given = set(part.input_schema.get("properties", {})) & written
    if given:
        raise UsageError(
            f"The flow cannot be inserted: its input and its states both write {min(given)!r}."
        )
    asked = {name for state in early for name in fields_read(states[state]) if name}
    inputs = {name: (key, INPUT, name) for name in asked - written}
    result: dict[str, dict[str, Any]] = {}
    for name, state in states.items():
        if name in early and None in fields_read(state):
            raise UsageError(
                f"The flow cannot be inserted: its state {name!r} reads the whole document."
            )
        places = Places((key,), {**moved, **inputs} if name in early else moved)
        result[names[name]] = rewritten(state, places, names)
    return result


def _before_replacement(start: str, states: Mapping[str, State]) -> set[str]:
    """The states that may run while the document still holds what it began with."""
    return _reached([start], states, lambda name: not replaces_document(states[name]))


def _after_replacement(states: Mapping[str, State]) -> set[str]:
    begins = [
        transition.target
        for state in states.values()
        if replaces_document(state)
        for transition in targets(state)
        if transition.kind == "next"
    ]
    return _reached(begins, states, lambda name: True)


def _reached(
    begins: list[str], states: Mapping[str, State], goes_on: Callable[[str], bool]
) -> set[str]:
    found = set(begins)
    waiting = list(begins)
    while waiting:
        name = waiting.pop()
        for transition in targets(states[name]):
            if transition.kind == "next" and not goes_on(name):
                continue
            if transition.target not in found:
                found.add(transition.target)
                waiting.append(transition.target)
    return found


def fields_written(state: State) -> Iterator[str]:
    """The top-level fields of the document that ``state`` writes, also when it fails."""
    places = [result_path(state), *(catch_path(catcher) for catcher in state.get("Catch", ()))]
    for place in places:
        if place:
            yield str(place[0])


def fields_read(state: State) -> set[str | None]:
    """The top-level fields that ``state`` reads; None stands for the whole document."""
    found: set[str | None] = {str(r.steps[0]) if r.steps else None for r in state_reads(state)}
    for path in _compared(state.get("Choices", [])):
        steps = paths.leading_steps(path)
        if steps[:1] != [paths.CONTEXT]:
            found.add(str(steps[0]) if steps else None)
    return found


def _compared(rule: Any) -> Iterator[str]:
    """The paths in a Choice's rules."""
    if isinstance(rule, dict):
        for key, value in rule.items():
            if key == "Variable" or OPERATORS.get(key) == "path":
                yield value
            else:
                yield from _compared(value)
    elif isinstance(rule, list):
        for inner in rule:
            yield from _compared(inner)
