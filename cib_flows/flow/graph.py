"""A definition as states and the transitions between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Kind", "Transition", "failing", "reachable", "targets"]

Kind = Literal["next", "choice", "default", "catch"]


@dataclass(frozen=True)
class Transition:
    """Where a run may go from a state: the field that says so, and the next state's name."""

    place: tuple[str | int, ...]
    target: str
    kind: Kind


def targets(state: Mapping[str, Any]) -> Iterator[Transition]:
    """The transitions of a state, also of one that is not sound."""
    if isinstance(state.get("Next"), str):
        yield Transition(("Next",), state["Next"], "next")
    for field, kind in _LISTS:
        entries = state.get(field)
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, dict) and isinstance(entry.get("Next"), str):
                yield Transition((field, number, "Next"), entry["Next"], kind)
        if field == "Choices" and isinstance(state.get("Default"), str):
            yield Transition(("Default",), state["Default"], "default")


_LISTS: tuple[tuple[str, Kind], ...] = (("Choices", "choice"), ("Catch", "catch"))


def reachable(start: str, states: Mapping[str, Any], *, catching: bool = True) -> set[str]:
    """The names of the states that a run may come to; without ``catching``, as long as no error is
    caught."""
    reached = {start}
    waiting = [start]
    while waiting:
        state = states.get(waiting.pop())
        for transition in targets(state) if isinstance(state, dict) else ():
            if transition.kind == "catch" and not catching:
                continue
            if transition.target in states and transition.target not in reached:
                reached.add(transition.target)
                waiting.append(transition.target)
    return reached


def failing(states: Mapping[str, Any]) -> set[str]:
    """The names of the states from which every way ends in a Fail state."""
    good = {name for name, state in states.items() if _is(state, "End", True)}
    bad = {name for name, state in states.items() if _is(state, "Type", "Fail")}
    # What can only go round for ever does not fail.
    return _leading_to(bad, states) - _leading_to(good, states)


def _is(state: Any, field: str, value: Any) -> bool:
    return isinstance(state, dict) and state.get(field) == value


def _leading_to(goals: set[str], states: Mapping[str, Any]) -> set[str]:
    """``goals`` and every state from which a run may come to one of them."""
    sources: dict[str, list[str]] = {}
    for name, state in states.items():
        for transition in targets(state) if isinstance(state, dict) else ():
            sources.setdefault(transition.target, []).append(name)
    found = set(goals)
    waiting = list(goals)
    while waiting:
        new = set(sources.get(waiting.pop(), ())) - found
        found |= new
        waiting.extend(new)
    return found
