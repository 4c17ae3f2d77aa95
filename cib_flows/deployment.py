"""Putting the functions and the flow on a Globus, and remembering what was put there.

Functions cannot be changed once registered, so one is registered anew exactly when the sha256 of
its text is new. The flow is created once and updated afterwards. What is deployed stands in a small
JSON record without secrets, which may be committed and shared: ``CIB_FLOWS_DEPLOYMENT`` names the
file, otherwise each profile has its own.
"""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from cib_flows.bundle import FunctionBundle, bundle_function, function_names
from cib_flows.deployment_record import (
    Deployment,
    RegisteredFunction,
    load_deployment,
    save_deployment,
)
from cib_flows.errors import CibFlowsError, NotFoundError, UsageError
from cib_flows.files import one_at_a_time
from cib_flows.profiles import Globus
from cib_flows.services import explained

__all__ = [
    "FlowSource",
    "deploy",
    "ensure_deployed",
    "fill_placeholders",
]

ROLES = ("flow_viewers", "flow_starters", "flow_administrators", "run_managers", "run_monitors")
MAY_UPDATE = ("flow_owner", "flow_administrator")
PLACEHOLDER = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class FlowSource:
    """The flow as it lies in ``flows/build_container``, before a deployment fills it."""

    definition: dict[str, Any]
    input_schema: dict[str, Any]
    about: dict[str, Any]

    @classmethod
    def packaged(cls) -> FlowSource:
        """The flow that this version of cib-flows comes with."""
        folder = resources.files("cib_flows.flows").joinpath("build_container")
        read = [
            json.loads(folder.joinpath(name).read_text(encoding="utf-8"))
            for name in ("definition.json", "input_schema.json", "flow.json")
        ]
        return cls(*read)

    @property
    def settings(self) -> dict[str, Any]:
        """The Settings state's parameters: placeholders, and the endpoint profiles that the steps
        ask for.
        """
        return dict(self.definition["States"]["Settings"]["Parameters"])

    @property
    def control_config(self) -> dict[str, Any]:
        """The ``user_endpoint_config`` for light steps, such as watching a run."""
        return dict(self.settings["control_config"])

    @property
    def build_config(self) -> dict[str, Any]:
        """The ``user_endpoint_config`` for steps that build or run images."""
        return dict(self.settings["build_config"])


def ensure_deployed(globus: Globus, say: Callable[[str], None] | None = None) -> Deployment:
    """The deployment to start runs of, made or brought up to date first where needed.

    A flow that belongs to someone else is used as it is.
    """
    current = load_deployment(globus)
    if current is None:
        return deploy(globus, say=say)
    wanted = _wanted_functions()
    matches = all(
        name in current.functions and current.functions[name].sha256 == bundle.sha256
        for name, bundle in wanted.items()
    ) and current.flow_sha256 == _flow_digest(_filled(FlowSource.packaged(), current))
    try:
        with explained("look up the deployed flow"):
            flow = globus.flows.get_flow(current.flow_id)
    except NotFoundError:
        return deploy(globus, say=say)
    if matches or str(flow.get("user_role") or MAY_UPDATE[0]) not in MAY_UPDATE:
        return current
    return deploy(globus, say=say)


def deploy(
    globus: Globus,
    build_endpoint: str | None = None,
    run_endpoint: str | None = None,
    force: bool = False,
    say: Callable[[str], None] | None = None,
) -> Deployment:
    """Registers the functions whose text is new, creates or updates the flow, and writes the
    record.

    Doing it again changes nothing. ``force`` registers every function anew and updates the flow.
    ``say`` is told each thing that was changed, in one line.

    Raises ``UsageError`` when no build endpoint is known, ``ServiceError`` when a service refuses.
    """
    tell = say or (lambda line: None)
    # Two first builds at once must not make two flows.
    with one_at_a_time(globus.record_path.with_suffix(".lock")):
        return _deploy(globus, build_endpoint, run_endpoint, force, tell)


def _deploy(
    globus: Globus,
    build_endpoint: str | None,
    run_endpoint: str | None,
    force: bool,
    tell: Callable[[str], None],
) -> Deployment:
    before = load_deployment(globus) if not force else _load_or_none(globus)
    flow_exists = before is not None and _exists(globus, before.flow_id)
    recorded = before.build_endpoint if before else None
    # Where the flow is gone, so may be the endpoint of its record: a home may have been made anew.
    known = (recorded, globus.build_endpoint) if flow_exists else (globus.build_endpoint, recorded)
    build = build_endpoint or known[0] or known[1]
    if build is None:
        raise UsageError(
            "No build endpoint is known; name one with --build-endpoint or "
            "CIB_FLOWS_BUILD_ENDPOINT."
        )
    if run_endpoint is None:
        run_endpoint = before.run_endpoint if before and before.build_endpoint == build else build

    functions: dict[str, RegisteredFunction] = {}
    for name, bundle in _wanted_functions().items():
        old = before.functions.get(name) if before and not force else None
        if old and old.sha256 == bundle.sha256 and (flow_exists or _registered(globus, old)):
            functions[name] = old
        else:
            functions[name] = _register(globus, bundle)
            tell(f"registered {name} as {functions[name].id}")

    after = Deployment(
        flow_id=before.flow_id if before and flow_exists else "",
        flow_sha256="",
        build_endpoint=build,
        run_endpoint=run_endpoint,
        functions=functions,
        roles=before.roles if before and flow_exists else {},
        worker=before.worker if before and before.build_endpoint == build else {},
    )
    after = _put_flow(globus, after, before.flow_sha256 if before and not force else "", tell)
    if after != before:
        save_deployment(globus, after)
    return after


def fill_placeholders(value: Any, fillings: dict[str, str]) -> Any:
    """A copy of ``value`` in which each string that is a placeholder, such as ``<endpoint:build>``,
    is filled.

    Raises ``CibFlowsError`` naming what is left over.
    """
    filled = _fill(copy.deepcopy(value), fillings)
    left = sorted({text for text in _strings(filled) if PLACEHOLDER.fullmatch(text)})
    if left:
        raise CibFlowsError(
            "The flow's definition has placeholders that this version cannot fill: "
            f"{', '.join(left)}."
        )
    return filled


def _fill(value: Any, fillings: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(inner, fillings) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, fillings) for inner in value]
    if isinstance(value, str):
        return fillings.get(value, value)
    return value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


def _wanted_functions() -> dict[str, FunctionBundle]:
    return {name: bundle_function(name) for name in function_names()}


def _load_or_none(globus: Globus) -> Deployment | None:
    try:
        return load_deployment(globus)
    except UsageError:
        return None


def _exists(globus: Globus, flow_id: str) -> bool:
    try:
        with explained("look up the deployed flow"):
            globus.flows.get_flow(flow_id)
    except NotFoundError:
        return False
    return True


def _registered(globus: Globus, function: RegisteredFunction) -> bool:
    globus.compute_pacer.wait()
    try:
        with explained("look up a registered function"):
            globus.compute_v2.get_function(function.id)
    except NotFoundError:
        return False
    return True


def _register(globus: Globus, bundle: FunctionBundle) -> RegisteredFunction:
    globus.compute_pacer.wait()
    with explained(f"register the function {bundle.name}"):
        answer = globus.compute.register_function(
            {
                "function_name": bundle.name,
                "function_code": bundle.source,
                # The service wraps text by itself, so that any Python version can run it.
                "serialized": False,
                "meta": {"python_version": platform.python_version(), "sdk_version": None},
                "description": f"cib-flows {bundle.name}, sha256 {bundle.sha256}",
            }
        )
    return RegisteredFunction(str(answer["function_uuid"]), bundle.sha256)


def _filled(source: FlowSource, deployment: Deployment) -> FlowSource:
    fillings = {
        "<endpoint:build>": deployment.build_endpoint,
        "<endpoint:run>": deployment.run_endpoint,
        **{f"<function:{name}>": function.id for name, function in deployment.functions.items()},
    }
    schema = copy.deepcopy(source.input_schema)
    schema["properties"]["build_endpoint"]["default"] = deployment.build_endpoint
    return FlowSource(
        definition=fill_placeholders(source.definition, fillings),
        input_schema=fill_placeholders(schema, fillings),
        about=source.about,
    )


def _flow_digest(flow: FlowSource) -> str:
    text = json.dumps([flow.definition, flow.input_schema, flow.about], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _put_flow(
    globus: Globus, deployment: Deployment, deployed_sha256: str, tell: Callable[[str], None]
) -> Deployment:
    flow = _filled(FlowSource.packaged(), deployment)
    digest = _flow_digest(flow)
    roles: dict[str, Any] = {role: list(flow.about.get(role, [])) for role in ROLES}
    about: dict[str, Any] = {
        key: flow.about[key]
        for key in ("subtitle", "description", "keywords", "subscription_id")
        if flow.about.get(key)
    }
    if not deployment.flow_id:
        globus.flows_pacer.wait()
        with explained("create the flow"):
            created = globus.flows.create_flow(
                flow.about["title"], flow.definition, flow.input_schema, **about, **roles
            )
        tell(f"created the flow {created['id']}")
        return replace(deployment, flow_id=str(created["id"]), flow_sha256=digest, roles=roles)
    if digest != deployed_sha256:
        # Roles that the file has not changed are left alone: an administrator may have set others
        # in the web app.
        changed = {
            role: names for role, names in roles.items() if names != deployment.roles.get(role)
        }
        globus.flows_pacer.wait()
        with explained("update the flow"):
            globus.flows.update_flow(
                deployment.flow_id,
                title=flow.about["title"],
                definition=flow.definition,
                input_schema=flow.input_schema,
                **about,
                **changed,
            )
        tell(f"updated the flow {deployment.flow_id}")
    return replace(deployment, flow_sha256=digest, roles=roles)
