"""What the linter says about one place of a definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .problems import Place

__all__ = ["CODES", "Finding", "Remark", "remark"]

Severity = Literal["error", "warning"]

_ERRORS = {
    "syntax": "the file is no JSON or YAML",
    "missing-field": "a field that the service requires is not there",
    "unknown-field": "a field that the language does not have",
    "wrong-type": "a value of another type than the field takes",
    "invalid-value": "a value that the field does not take",
    "next-or-end": "a state has both Next and End, or neither",
    "no-such-state": "a transition leads to a state that is not there",
    "unreachable-state": "no transition leads to a state",
    "unknown-state-type": "a state type that the language does not have",
    "invalid-schema": "the input schema is not JSON Schema",
}
_WARNINGS = {
    "duplicate-key": "a key stands in one object twice",
    "path-never-written": "a path is read that is never there",
    "path-maybe-unwritten": "a path is read that is missing on some ways",
    "input-not-described": "a path of the input is read that its schema does not name",
    "always-absent": "a question about a path that is never there",
    "default-result-path": "a result replaces the whole document, since nothing else is said",
    "catcher-without-result-path": "a caught error replaces the whole document",
    "default-wait-time": "an action may take five minutes only, since nothing else is said",
    "failure-flag-missing": "what a failed action does is left open",
    "failure-ignored": "a failed action goes unnoticed",
    "missing-catch": "nothing catches an action's errors",
    "catch-incomplete": "a documented error is not caught",
    "catcher-never-reached": "an error is caught that a catcher before takes",
    "undocumented-error-name": "a catcher names an error that is not documented",
    "choice-without-default": "a run fails when no rule holds",
    "ambiguous-input": "a Pass has several inputs",
    "input-path-may-vanish": "whether an InputPath is copied or moved is uncertain",
    "expression-outside-eval": "an expression where it may not be evaluated",
    "unknown-name-in-expression": "a word or function that expressions do not have",
    "run-as-role": "an action that needs a role's token",
    "retired-url": "an action provider that was retired",
    "renamed-input": "a field of an older version of a provider",
    "missing-input": "a field that the provider requires is not there",
    "compute-v2": "the older version of the Compute provider",
    "flow-as-action": "a flow is called as an action, whose input is not documented",
    "several-tasks": "an action of several tasks, whose failures hide each other",
    "state-may-grow": "the run's document may grow beyond 200 KB",
    "nested-format": "a form's widget where it does not show",
    "deprecated-format": "a form's format that is not documented any more",
    "incomplete-format": "an object that lacks a property of its format",
    "keyword-among-properties": "a keyword of JSON Schema among the properties",
    "unknown-property": "a name that is not among the properties",
}
# Every code with its severity and its meaning. Codes never change their meaning.
CODES: dict[str, tuple[Severity, str]] = {
    **{code: ("error", meaning) for code, meaning in _ERRORS.items()},
    **{code: ("warning", meaning) for code, meaning in _WARNINGS.items()},
}


@dataclass(frozen=True)
class Remark:
    """One fault and its remedy, at a ``place`` of a definition or an input schema.

    ``code`` is one of :data:`CODES`; ``message`` is one sentence; ``advice`` says what to do.
    """

    code: str
    place: Place
    message: str
    advice: str

    @property
    def severity(self) -> Severity:
        return CODES[self.code][0]


def remark(code: str, place: Place, message: str, advice: str) -> Remark:
    """A remark with a code that is known."""
    assert code in CODES, code
    return Remark(code, place, message, advice)


@dataclass(frozen=True)
class Finding:
    """A remark with the line where it stands."""

    file: str
    line: int
    column: int
    remark: Remark

    def document(self) -> dict[str, Any]:
        said = self.remark
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "severity": said.severity,
            "code": said.code,
            "place": list(said.place),
            "message": said.message,
            "advice": said.advice,
        }
