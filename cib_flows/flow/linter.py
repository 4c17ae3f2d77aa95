"""``lint``: what the service would refuse about a definition, and what it would silently do
wrong."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cib_flows.errors import UsageError

from .data_flow import follow
from .definition import definition_problems
from .findings import CODES, Finding, Remark, remark
from .input_shape import input_shape
from .problems import Place, Problem
from .rules_schema import schema_remarks
from .rules_states import state_remarks
from .source import Source, Unparsable, read_source

__all__ = ["Report", "lint", "lint_definition", "schema_beside"]

_ADVICE = {
    "missing-field": "Add the field.",
    "unknown-field": "Remove it; every state is closed, and what other languages have is not here.",
    "wrong-type": "Correct the value.",
    "invalid-value": "Correct the value.",
    "next-or-end": 'Write "Next" with a state\'s name, or "End": true.',
    "no-such-state": "Correct the name, or add the state.",
    "unreachable-state": "Lead a Next, a Default, a rule or a Catch to it, or remove it.",
    "unknown-state-type": 'A success ends with a Pass and "End": true; there are no loops but by'
    " Choice.",
}


@dataclass
class Report:
    """What was found, in the order of the lines.

    ``schema`` is the input schema that counted; ``input_paths`` what a run's input must bring, as
    far as no schema says so.
    """

    definition: str
    schema: str | None
    findings: list[Finding] = field(default_factory=list)
    input_paths: list[str] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return sum(finding.remark.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        return len(self.findings) - self.errors

    def document(self) -> dict[str, Any]:
        return {
            "ok": self.errors == 0,
            "definition": self.definition,
            "schema": self.schema,
            "errors": self.errors,
            "warnings": self.warnings,
            "input_paths": self.input_paths,
            "findings": [finding.document() for finding in self.findings],
        }


def lint_definition(definition: Any, schema: Any = None) -> tuple[list[Remark], list[str]]:
    """Remarks on a definition, and what its input must bring as far as ``schema`` (None: not known)
    does not say so. The schema itself is not judged."""
    problems = definition_problems(definition)
    refused = [_refused(problem) for problem in problems]
    if any(problem.code != "unreachable-state" for problem in problems):
        # What a definition does is only clear once it is sound.
        return refused, []
    # A state that nothing leads to does nothing; the others are as they are without it.
    aside = {problem.place[-1] for problem in problems}
    states = {name: state for name, state in definition["States"].items() if name not in aside}
    flow = follow({**definition, "States": states}, input_shape(schema))
    return [*refused, *state_remarks(states), *flow.remarks], flow.input_paths


def _refused(problem: Problem) -> Remark:
    place = problem.place[1:]
    where = "".join(f".{part}" if isinstance(part, str) else f"[{part}]" for part in place)
    message = f"{where.lstrip('.') or 'The definition'}: {problem.message}."
    return remark(problem.code, place, message, _ADVICE.get(problem.code, "Correct it."))


def lint(
    path: str | Path, schema_path: str | Path | None = None, ignore: Collection[str] = ()
) -> Report:
    """Lint the definition in a JSON or YAML file, which may also be a whole flow document with
    ``definition`` and ``input_schema``.

    Without ``schema_path``, an input schema that lies beside the definition under one of the usual
    names counts.

    :param ignore: codes of remarks to leave out
    :raises UsageError: a file cannot be read
    """
    unknown = set(ignore) - set(CODES)
    if unknown:
        raise UsageError(f"There is no lint code {min(unknown)!r}.")
    path = Path(path)
    found = Path(schema_path) if schema_path is not None else schema_beside(path)
    report = Report(str(path), None if found is None else str(found))
    source = _source(path, report)
    if source is None:
        return report
    root: Place = ()
    schema_root: Place = ()
    schema_source: Source | None = None
    whole = source.value
    if isinstance(whole, dict) and "States" not in whole and "definition" in whole:
        root = ("definition",)
        if found is None and "input_schema" in whole:
            schema_source, schema_root, report.schema = source, ("input_schema",), str(path)
    if found is not None:
        schema_source = _source(found, report)
    schema = _at(schema_source, schema_root)
    remarks, report.input_paths = lint_definition(_at(source, root), schema)
    report.findings += [_finding(str(path), source, root, said) for said in remarks]
    if schema_source is not None and report.schema is not None:
        report.findings += [
            _finding(report.schema, schema_source, schema_root, said)
            for said in schema_remarks(schema)
        ]
    report.findings = sorted(
        {item for item in report.findings if item.remark.code not in ignore},
        key=lambda item: (item.file != str(path), item.line, item.column, item.remark.code),
    )
    return report


def _at(source: Source | None, place: Place) -> Any:
    if source is None:
        return None
    return source.value[place[0]] if place else source.value


def _source(path: Path, report: Report) -> Source | None:
    """The file's content; None after a finding that says why it cannot be read as one."""
    try:
        source = read_source(path)
    except Unparsable as problem:
        said = remark(
            "syntax", (), f"This is no JSON or YAML: {problem}.", "Correct the text at this place."
        )
        at = problem.position
        report.findings.append(Finding(str(path), at.line, at.column, said))
        return None
    for place, position in source.duplicates:
        said = remark(
            "duplicate-key",
            place,
            f"The key {place[-1]!r} stands in this object twice; only the last one counts.",
            "Remove one of them.",
        )
        report.findings.append(Finding(str(path), position.line, position.column, said))
    return source


def _finding(file: str, source: Source, root: Place, said: Remark) -> Finding:
    position = source.position((*root, *said.place))
    return Finding(file, position.line, position.column, said)


def schema_beside(path: Path) -> Path | None:
    """The schema that belongs to the definition by its name: ``input_schema.json`` or
    ``schema.json`` beside ``definition.json``, also with the same words before."""
    if not path.stem.endswith("definition"):
        return None
    prefix = path.stem.removesuffix("definition")
    for name in ("input_schema", "schema"):
        for suffix in (path.suffix, ".json", ".yaml", ".yml"):
            beside = path.with_name(f"{prefix}{name}{suffix}")
            if beside.is_file():
                return beside
    return None
