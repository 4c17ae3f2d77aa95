"""What a drawing of a definition shows: boxes and arrows, before anyone says where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cib_flows.errors import UsageError

from .describe import errors_caught, rule_text, state_subtitle
from .graph import Kind, failing, reachable, targets

__all__ = ["Arrow", "Box", "Diagram", "diagram"]


@dataclass(frozen=True)
class Box:
    """A state. ``fails`` when every way from it ends in failure; ``aside`` when no run comes there
    as long as nothing goes wrong."""

    name: str
    kind: str
    subtitle: str
    comment: str
    ends: bool
    fails: bool
    aside: bool


@dataclass(frozen=True)
class Arrow:
    """A transition; several of one kind between two states are one arrow."""

    source: str
    target: str
    kind: Kind
    label: str


@dataclass(frozen=True)
class Diagram:
    start: str
    comment: str
    boxes: dict[str, Box]
    arrows: list[Arrow]


def diagram(definition: Any) -> Diagram:
    """The drawing's content; states that no transition leads to are shown too.

    :raises UsageError: it is no definition that could be drawn
    """
    states, start = _drawable(definition)
    doomed = failing(states)
    usual = reachable(start, states, catching=False)
    # Where everything fails, nothing stands aside.
    hopeless = start in doomed
    boxes = {
        name: Box(
            name,
            str(state.get("Type", "?")),
            state_subtitle(state),
            str(state.get("Comment", "")),
            state.get("End") is True,
            name in doomed,
            name not in usual or (name in doomed and not hopeless),
        )
        for name, state in states.items()
    }
    arrows = [arrow for name, state in states.items() for arrow in _arrows(name, state, states)]
    comment = definition.get("Comment")
    return Diagram(start, comment if isinstance(comment, str) else "", boxes, arrows)


def _drawable(definition: Any) -> tuple[dict[str, dict[str, Any]], str]:
    states = definition.get("States") if isinstance(definition, dict) else None
    if not isinstance(states, dict) or not states:
        raise UsageError("There are no states to draw: the definition has no object 'States'.")
    for name, state in states.items():
        if not isinstance(state, dict):
            raise UsageError(f"The state {name!r} is not an object.")
    start = definition.get("StartAt")
    if not isinstance(start, str) or start not in states:
        raise UsageError(f"StartAt names {start!r}, which is not a state.")
    return states, start


def _arrows(name: str, state: Mapping[str, Any], states: Mapping[str, Any]) -> list[Arrow]:
    labels: dict[tuple[str, Kind], list[str]] = {}
    for transition in targets(state):
        if transition.target not in states:
            raise UsageError(
                f"The state {name!r} leads to {transition.target!r}, which is not there."
            )
        label = ""
        if transition.kind == "choice":
            label = rule_text(state["Choices"][transition.place[1]])
        elif transition.kind == "default":
            label = "otherwise"
        elif transition.kind == "catch":
            label = errors_caught(state["Catch"][transition.place[1]])
        kind: Kind = "choice" if transition.kind == "default" else transition.kind
        labels.setdefault((transition.target, kind), []).append(label)
    return [
        Arrow(name, target, kind, ", or ".join(filter(None, found)))
        for (target, kind), found in labels.items()
    ]
