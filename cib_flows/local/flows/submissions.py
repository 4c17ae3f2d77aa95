"""Reads the bodies of requests: what a flow or a run is given is checked here, field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema
import referencing
import referencing.exceptions

from cib_flows.flow.definition import definition_problems
from cib_flows.flow.rules_schema import schema_errors

from . import roles
from .errors import Refusal, unprocessable
from .notifications import policy_problem
from .states import MAX_DOCUMENT_BYTES, document_size

__all__ = ["check_input", "flow_content", "flow_problems", "run_submission"]

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
URN = re.compile(rf"urn:globus:(auth:identity|groups:id):{UUID.pattern}")
MAX_MESSAGE = 1000

# Which words may stand beside URNs in a role.
FLOW_ROLES: dict[str, tuple[str, ...]] = {
    "flow_viewers": (roles.PUBLIC,),
    "flow_starters": (roles.ALL_USERS,),
    "flow_administrators": (),
    "run_managers": (),
    "run_monitors": (),
}
RUN_ROLES: dict[str, tuple[str, ...]] = {"run_managers": (), "run_monitors": ()}
ROLE_NAMES = {
    "flow_viewers": "FlowViewer",
    "flow_starters": "FlowStarter",
    "flow_administrators": "FlowAdministrator",
    "run_managers": "RunManager",
    "run_monitors": "RunMonitor",
}
# Texts and how long they may be.
FLOW_TEXTS = {"title": 128, "subtitle": 128, "description": 4096}
MAX_KEYWORD_CHARACTERS = 1024
FLOW_FIELDS = (
    "title",
    "subtitle",
    "description",
    "definition",
    "input_schema",
    "keywords",
    *FLOW_ROLES,
    "subscription_id",
    "authentication_policy_id",
)
DEFAULTS: dict[str, Any] = {
    "subtitle": "",
    "description": "",
    "keywords": [],
    **{name: [] for name in FLOW_ROLES},
    "subscription_id": None,
    "authentication_policy_id": None,
}

Problem = dict[str, Any]
KnowsAction = Callable[[Mapping[str, Any]], "str | None"]


def _problem(place: list[str | int], message: str, kind: str = "value_error") -> Problem:
    return {"loc": place, "msg": message, "type": kind}


# --- flows ----------------------------------------------------------------------------------------


def flow_content(
    body: Mapping[str, Any], present: Mapping[str, Any] | None, knows: KnowsAction
) -> dict[str, Any]:
    """What a new flow holds, or what ``present`` becomes with the changes in ``body``.

    :param knows: tells why an Action state cannot be served, or None
    :raises Refusal: 422 with every problem
    """
    base = dict(DEFAULTS) if present is None else dict(present)
    # A field that is null was not given.
    given = {name: body[name] for name in FLOW_FIELDS if body.get(name) is not None}
    content = {**base, **given}
    problems = [
        _problem([name], "field required", "value_error.missing")
        for name in ("title", "definition", "input_schema")
        if name not in content
    ]
    problems += flow_problems(given, knows)
    if problems:
        raise unprocessable(problems)
    return content


def flow_problems(given: Mapping[str, Any], knows: KnowsAction) -> list[Problem]:
    """What is wrong with the given fields of a flow."""
    problems: list[Problem] = []
    for name, limit in FLOW_TEXTS.items():
        if name in given:
            problems += _text_problems(name, given[name], limit, required=name == "title")
    if "keywords" in given:
        problems += _keyword_problems(given["keywords"])
    problems += _role_problems(given, FLOW_ROLES)
    problems += _id_problems(given)
    if "definition" in given:
        found = [problem.document() for problem in definition_problems(given["definition"])]
        problems += found or list(_provider_problems(given["definition"], knows))
    if "input_schema" in given:
        problems += _schema_problems(given["input_schema"])
    return problems


def _text_problems(name: str, value: Any, limit: int, *, required: bool) -> Iterator[Problem]:
    if not isinstance(value, str):
        yield _problem([name], "str type expected", "type_error.str")
    elif len(value) > limit:
        yield _problem(
            [name],
            f"ensure this value has at most {limit} characters",
            "value_error.any_str.max_length",
        )
    elif required and not value.strip():
        yield _problem(
            [name], "ensure this value has at least 1 characters", "value_error.any_str.min_length"
        )


def _keyword_problems(value: Any) -> Iterator[Problem]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        yield _problem(["keywords"], "a list of strings is expected", "type_error.list")
    elif sum(len(word) for word in value) > MAX_KEYWORD_CHARACTERS:
        yield _problem(
            ["keywords"], f"keywords may have {MAX_KEYWORD_CHARACTERS} characters together"
        )


def _id_problems(given: Mapping[str, Any]) -> Iterator[Problem]:
    for name, words in (("subscription_id", ("DEFAULT",)), ("authentication_policy_id", ())):
        value = given.get(name)
        if value is None or value in words or (isinstance(value, str) and UUID.fullmatch(value)):
            continue
        yield _problem([name], "value is not a valid uuid", "type_error.uuid")


def _role_problems(
    given: Mapping[str, Any], known: Mapping[str, tuple[str, ...]]
) -> Iterator[Problem]:
    for name, words in known.items():
        if name not in given:
            continue
        if not isinstance(given[name], list):
            yield _problem([name], "value is not a valid list", "type_error.list")
            continue
        for number, principal in enumerate(given[name]):
            if isinstance(principal, str) and (principal in words or URN.fullmatch(principal)):
                continue
            allowed = ", ".join(
                [*(f'"{word}"' for word in words), "<AuthGroupUrn>", "<AuthIdentityUrn>"]
            )
            yield _problem(
                [name, number],
                f"Unrecognized principal string: {json.dumps(principal)}. Allowed principal types"
                " in role"
                f' "{ROLE_NAMES[name]}": [{allowed}]',
            )


def _provider_problems(definition: Mapping[str, Any], knows: KnowsAction) -> Iterator[Problem]:
    for name, state in definition["States"].items():
        message = knows(state) if state["Type"] == "Action" else None
        if message is not None:
            yield _problem(["definition", "States", name], message)


def _schema_problems(schema: Any) -> Iterator[Problem]:
    if not isinstance(schema, dict):
        yield _problem(["input_schema"], "value is not a valid dict", "type_error.dict")
        return
    for error in schema_errors(schema):
        yield _problem(["input_schema", *error.absolute_path], error.message[:MAX_MESSAGE])


# --- runs -----------------------------------------------------------------------------------------


def run_submission(body: Mapping[str, Any], *, with_input: bool) -> dict[str, Any]:
    """Label, tags, roles and notification policy of a run, as given; absent when not given.

    :raises Refusal: 422 with every problem
    """
    problems: list[Problem] = []
    if with_input and "body" not in body:
        problems.append(_problem(["body"], "field required", "value_error.missing"))
    elif with_input and not isinstance(body["body"], dict):
        problems.append(_problem(["body"], "value is not a valid dict", "type_error.dict"))
    names = ("label", "tags", "activity_notification_policy", *RUN_ROLES)
    given = {name: body[name] for name in names if body.get(name) is not None}
    if not isinstance(given.get("label", ""), str):
        problems.append(_problem(["label"], "str type expected", "type_error.str"))
    tags = given.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        problems.append(_problem(["tags"], "a list of strings is expected", "type_error.list"))
    wrong = policy_problem(given.get("activity_notification_policy", {}))
    if wrong is not None:
        place, message = wrong
        problems.append(_problem(["activity_notification_policy", *place], message))
    problems += _role_problems(given, RUN_ROLES)
    if problems:
        raise unprocessable(problems)
    if "tags" in given:
        given["tags"] = [" ".join(tag.split()) for tag in tags]
    return given


def check_input(document: Any, schema: Any) -> None:
    """Check a run's input against its flow's schema.

    :raises Refusal: 400 ``FLOW_INPUT_ERROR`` naming every field that does not fit
    """
    # Without a registry of its own the validator would fetch remote references.
    validator = jsonschema.Draft7Validator(schema, registry=referencing.Registry())
    try:
        errors = sorted(
            validator.iter_errors(document), key=lambda error: list(map(str, error.absolute_path))
        )
    except RecursionError:
        sentence = "the input schema refers to itself without end"
        raise _input_refusal([("$", sentence)]) from None
    except referencing.exceptions.Unresolvable as error:
        raise _input_refusal(
            [("$", f"the input schema refers to {error.ref!r}, which it does not hold")]
        ) from error
    problems = [(error.json_path, error.message) for error in errors]
    size = document_size(document)
    if size > MAX_DOCUMENT_BYTES:
        problems.append(("$", f"the input has {size} bytes; {MAX_DOCUMENT_BYTES} are allowed"))
    if problems:
        raise _input_refusal(problems)


def _input_refusal(problems: list[tuple[str, str]]) -> Refusal:
    count = len(problems)
    return Refusal(
        400,
        "FLOW_INPUT_ERROR",
        [
            {"loc": [place], "type": "InvalidActionInput", "msg": message[:MAX_MESSAGE]}
            for place, message in problems
        ],
        f"Input failed schema validation with {count} error{'' if count == 1 else 's'}.",
    )
