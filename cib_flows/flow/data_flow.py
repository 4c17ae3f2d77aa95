"""Which paths a state reads that no state before it wrote."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import paths
from .effects import ACTION_FIELDS, catch_path, outcomes, refined, replaces_document, result_path
from .findings import Remark, remark
from .graph import reachable
from .language import OPERATORS
from .paths import CONTEXT, Step
from .problems import Place
from .reads import Read, state_reads
from .shapes import ANYTHING, Field, Object, Shape, Verdict, join, look_up, read

__all__ = ["DataFlow", "follow"]

# A loop that still changes what is known after so many rounds is given up: nothing is known there.
MAX_ROUNDS = 40


@dataclass
class DataFlow:
    """``input_paths`` is what a run's input must bring, as far as no schema describes it."""

    remarks: list[Remark] = field(default_factory=list)
    input_paths: list[str] = field(default_factory=list)


def follow(definition: Mapping[str, Any], given: Shape) -> DataFlow:
    """Follow every way through a sound ``definition`` whose runs begin with a document like
    ``given``."""
    states: dict[str, dict[str, Any]] = definition["States"]
    entries = _entries(definition["StartAt"], states, given)
    explain = _Explanation(states, given)
    result = DataFlow()
    told: set[tuple[str, str, Step]] = set()
    for name, shape in entries.items():
        state = states[name]
        for found, known in _reads(state, shape):
            said = explain.said(name, found, known)
            if said is not None:
                # One remark for all that a state reads below the same missing field.
                whole = read(known, found.steps[:1])[0] != "there"
                cause = (name, said.code, found.steps[0] if whole else found.text)
                if cause not in told:
                    result.remarks.append(said)
                told.add(cause)
            elif explain.is_input(found, known):
                path = found.text if found.text.startswith("$") else f"$.{found.text}"
                if path not in result.input_paths:
                    result.input_paths.append(path)
    return result


def _entries(start: str, states: Mapping[str, Any], given: Shape) -> dict[str, Shape]:
    """What is known of the document when each state begins."""
    entries: dict[str, Shape] = {start: given}
    rounds: dict[str, int] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop(0)
        rounds[name] = rounds.get(name, 0) + 1
        for target, shape in outcomes(states[name], entries[name]):
            before = entries.get(target)
            after = shape if before is None else join([before, shape])
            if after != before and rounds.get(target, 0) < MAX_ROUNDS:
                entries[target] = after
                if target not in waiting:
                    waiting.append(target)
    return entries


def _reads(state: Mapping[str, Any], shape: Shape) -> Iterator[tuple[Read, Shape]]:
    """Every read of ``state`` with what is known of the document then."""
    for found in state_reads(state):
        yield found, shape
    for number, rule in enumerate(state.get("Choices", ())):
        yield from _rule_reads(rule, ("Choices", number), shape)
        shape = refined(shape, rule, False)


def _rule_reads(rule: Any, place: Place, shape: Shape) -> Iterator[tuple[Read, Shape]]:
    for word, holds in (("And", True), ("Or", False)):
        for number, part in enumerate(rule.get(word, ())):
            yield from _rule_reads(part, (*place, word, number), shape)
            shape = refined(shape, part, holds)
    if "Not" in rule:
        yield from _rule_reads(rule["Not"], (*place, "Not"), shape)
    if "Variable" not in rule:
        return
    operator = next(key for key in rule if key in OPERATORS)
    fields = ["Variable"] if operator != "IsPresent" else []
    for key in [*fields, *([operator] if OPERATORS[operator] == "path" else [])]:
        steps = tuple(paths.leading_steps(rule[key]))
        if steps[:1] != (CONTEXT,):
            yield Read((*place, key), steps, rule[key]), shape


@dataclass(frozen=True)
class _Loss:
    """A state whose result, or whose caught error, replaces the document for those ``after``."""

    state: str
    after: set[str]
    caught: bool


class _Explanation:
    """Says why a path finds nothing, in terms of the states that could have written it."""

    def __init__(self, states: Mapping[str, dict[str, Any]], given: Shape) -> None:
        self._given = given
        self._states = states
        self._writers: dict[str, list[str]] = {}
        self._losses: list[_Loss] = []
        for name, state in states.items():
            places = [result_path(state)]
            places += [catch_path(catcher) for catcher in state.get("Catch", ())]
            for place in places:
                for key in self._written(state, place):
                    self._writers.setdefault(key, [])
                    if name not in self._writers[key]:
                        self._writers[key].append(name)
            if replaces_document(state) and isinstance(state.get("Next"), str):
                after = reachable(state["Next"], states)
                self._losses.append(_Loss(name, after, caught=False))
            for catcher in state.get("Catch", ()):
                if catch_path(catcher) == ():
                    after = reachable(catcher["Next"], states)
                    self._losses.append(_Loss(name, after, caught=True))

    @staticmethod
    def _written(state: Mapping[str, Any], place: tuple[Step, ...] | None) -> list[str]:
        if place is None:
            return []
        if place:
            return [str(place[0])]
        template = state.get("Parameters", state.get("Result"))
        if state["Type"] in ("Pass", "ExpressionEval") and isinstance(template, dict):
            return [key[:-2] if key.endswith((".$", ".=")) else key for key in template]
        return []

    def _replacers(self, name: str, key: str) -> list[str]:
        """The states that replace the document, and ``key`` with it, before ``name`` runs."""
        writers = self._writers.get(key, [])
        since = set().union(*(reachable(writer, self._states) for writer in writers))
        given = read(self._given, (key,))[0] in ("there", "perhaps", "undescribed")
        return [
            f"an error caught in {loss.state!r}" if loss.caught else repr(loss.state)
            for loss in self._losses
            if name in loss.after
            and (given or loss.state in since)
            and (loss.caught or loss.state not in writers)
        ]

    def is_input(self, found: Read, shape: Shape) -> bool:
        return not found.tolerant and read(shape, found.steps)[0] == "undescribed"

    def said(self, name: str, found: Read, shape: Shape) -> Remark | None:
        verdict = self._verdict(found, shape)
        place = ("States", name, *found.place)
        if verdict == "there" or (found.tolerant and verdict != "never"):
            return None
        if verdict == "undescribed":
            return self._undescribed(place, found)
        text = found.text
        if found.tolerant:
            return remark(
                "always-absent",
                place,
                f"{text!r} is never there when this state runs, so the answer is always the same:"
                f" {self._why_never(name, found, shape)}.",
                "Correct the path, or leave the question out.",
            )
        if verdict == "never":
            return remark(
                "path-never-written",
                place,
                f"{text} is never there when this state runs: {self._why_never(name, found, shape)}.",
                "Correct the path, or write it in a state before this one.",
            )
        return remark(
            "path-maybe-unwritten",
            place,
            f"{text} may be missing when this state runs: {self._why_perhaps(name, found, shape)}.",
            "Ask before with a Choice and IsPresent, or read it in an ExpressionEval with"
            " getattr('…', default=…).",
        )

    def _verdict(self, found: Read, shape: Shape) -> Verdict:
        verdict, _ = read(shape, found.steps)
        if verdict == "perhaps" and not self._known(str(found.steps[0])):
            # Only an error that replaced the document could bring it, which nobody counts on.
            return "never"
        return verdict

    def _known(self, key: str) -> bool:
        return key in self._writers or read(self._given, (key,))[0] in ("there", "perhaps")

    def _undescribed(self, place: Place, found: Read) -> Remark | None:
        top = str(found.steps[0]) if found.steps else ""
        described = isinstance(self._given, Object)
        near = difflib.get_close_matches(top, [*self._writers, *self._states], 1, 0.8)
        near = [name for name in near if name != top]
        if top in self._states and not described:
            return remark(
                "path-never-written",
                place,
                f"{found.text} has the name of a state, but no state before this one writes"
                f" '$.{top}'.",
                f"Give the state {top!r} the ResultPath '$.{top}', or correct the path.",
            )
        if described:
            return remark(
                "input-not-described",
                place,
                f"{found.text} is written by no state before this one, and the input schema does"
                " not name it.",
                "Add it to the schema's properties and its required fields, or correct the path.",
            )
        if near:
            return remark(
                "path-never-written",
                place,
                f"{found.text} is written by no state; '$.{near[0]}' is.",
                "Correct the path, or ignore this if the run's input has it.",
            )
        return None

    def _why_never(self, name: str, found: Read, shape: Shape) -> str:
        depth = 0
        while depth < len(found.steps) and read(shape, found.steps[: depth + 1])[0] != "never":
            depth += 1
        if not self._known(str(found.steps[0])):
            depth = 0
        missing = found.steps[depth] if depth < len(found.steps) else ""
        holder = look_up(shape, found.steps[:depth])
        if depth == 0:
            return self._why_not_at_top(name, str(missing), holder)
        above = "$" + "".join(_shown(step) for step in found.steps[:depth])
        if isinstance(holder, Object):
            if set(holder.fields) == set(ACTION_FIELDS):
                return f"{above} is an action's status document, which has no {missing!r}" + _near(
                    missing, holder
                )
            return f"{above} has no {missing!r}" + _near(missing, holder)
        if isinstance(missing, int):
            return f"{above} is no list with an item {missing}"
        return f"{above} is a single value"

    def _why_not_at_top(self, name: str, key: str, holder: Shape) -> str:
        writers = self._writers.get(key, [])
        replacers = self._replacers(name, key)
        lost = f"{_listed(replacers)} replaces the whole document" if replacers else ""
        if writers:
            return f"{_names(writers)} writes it, but " + (lost or "not before this state")
        verdict = read(self._given, (key,))[0]
        if lost and verdict in ("there", "perhaps"):
            return f"the input has it, but {lost}"
        if lost and verdict == "undescribed":
            return f"no state writes it, and {lost} that the input brought"
        near = _near(key, Object({name: Field(ANYTHING) for name in self._writers}))
        return "no state writes it, and the input has no such field" + (near or _near(key, holder))

    def _why_perhaps(self, name: str, found: Read, shape: Shape) -> str:
        depth = 0
        while read(shape, found.steps[: depth + 1])[0] == "there":
            depth += 1
        part = "$" + "".join(_shown(step) for step in found.steps[: depth + 1])
        key = str(found.steps[0])
        writers = self._writers.get(key, [])
        replacers = self._replacers(name, key)
        if depth == 0 and replacers:
            return f"{_listed(replacers)} replaces the whole document, and {part} with it"
        if depth == 0 and writers:
            return f"a run may come here without passing {_names(writers)}, which writes {part}"
        if read(self._given, found.steps[: depth + 1])[0] == "perhaps":
            return (
                f"the input schema does not require {part} (a default there only fills in the form)"
            )
        return f"{part} is there only on some of the ways to this state"


def _shown(step: Step) -> str:
    return f".{step}" if isinstance(step, str) else f"[{step}]"


def _names(names: list[str]) -> str:
    return _listed([repr(name) for name in names])


def _listed(words: list[str]) -> str:
    return " or ".join(words[:3]) + (" or another" if len(words) > 3 else "")


def _near(name: Step, holder: Shape) -> str:
    fields = list(holder.fields) if isinstance(holder, Object) else []
    near = difflib.get_close_matches(str(name), fields, 1)
    if near:
        return f" (but {near[0]!r})"
    return f" (it has {', '.join(fields)})" if 0 < len(fields) <= 8 else ""
