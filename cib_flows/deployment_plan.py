"""What a deployment would change: decided from the files, the record and the deployed flow alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cib_flows.bundle import FunctionBundle
from cib_flows.deployment_record import DeployedFlow, Deployment
from cib_flows.flow_source import BUILD_FLOW, FlowSource

__all__ = [
    "ROLES",
    "Choices",
    "FlowChange",
    "FunctionChange",
    "Plan",
    "Wanted",
    "differences",
    "flow_differences",
    "make_plan",
]

ROLES = ("flow_viewers", "flow_starters", "flow_administrators", "run_managers", "run_monitors")
ABOUT = ("title", "subtitle", "description", "keywords")
MAX_SHOWN = 80


@dataclass(frozen=True)
class Choices:
    """What a deployer chose; None leaves what the record, or else the files, say.

    ``roles`` maps a role such as ``flow_starters`` to principals (URNs of identities or groups,
    ``all_authenticated_users``, ``public``). ``data_access`` lists the mapped collections for whose
    ``data_access`` consent runs ask. ``flows`` are deployed beside those that are deployed already;
    where some are named, the roles are for these alone.
    """

    build_endpoint: str | None = None
    run_endpoint: str | None = None
    roles: Mapping[str, list[str]] = field(default_factory=dict)
    subscription_id: str | None = None
    data_access: list[str] | None = None
    flows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What shall be deployed: everything but the ids that Globus gives. ``further`` has the flows
    beside the build flow, which share its functions and endpoints.
    """

    source: FlowSource
    bundles: Mapping[str, FunctionBundle]
    build_endpoint: str
    run_endpoint: str
    roles: dict[str, list[str]]
    given_roles: dict[str, list[str]]
    subscription_id: str
    data_access: list[str]
    further: Mapping[str, Wanted] = field(default_factory=dict)

    @property
    def flows(self) -> dict[str, Wanted]:
        """Every flow that is wanted, by its name."""
        return {BUILD_FLOW: self, **self.further}

    def document(self, functions: Mapping[str, str]) -> dict[str, Any]:
        """The flow as the service shall have it, with these function ids; without roles."""
        flow = self.source.filled(self.build_endpoint, self.run_endpoint, functions)
        about = {key: flow.about[key] for key in ABOUT if flow.about.get(key)}
        return {**about, "definition": flow.definition, "input_schema": flow.input_schema}

    def digest(self, functions: Mapping[str, str]) -> str:
        """sha256 of everything the flow is created or updated with."""
        whole = [self.document(functions), self.roles, self.subscription_id]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class FunctionChange:
    """One function: the sha256 of the text that is deployed, if any, and of the one in the files,
    if it is still there. ``id`` is what it has now; ``why`` it is registered, or None.
    """

    name: str
    old_sha256: str | None
    new_sha256: str | None
    id: str | None
    why: Literal["new", "changed", "gone from Globus", "forced"] | None

    def __str__(self) -> str:
        old, new = ((sha or "")[:12] for sha in (self.old_sha256, self.new_sha256))
        if self.new_sha256 is None:
            return f"forget {self.name} ({old}), which no longer exists"
        if self.why == "changed":
            return f"register {self.name}: its text changed from {old} to {new}"
        if self.why is not None:
            return f"register {self.name} ({new}): {self.why}"
        return f"keep {self.name} ({new}) as {self.id}"


@dataclass(frozen=True)
class FlowChange:
    """One flow: what is done with it, its id where it has one, and what changes in it."""

    action: Literal["create", "update", "keep"]
    flow_id: str | None
    changes: list[str]

    def as_dict(self) -> dict[str, Any]:
        return {"action": self.action, "id": self.flow_id, "changes": self.changes}

    def lines(self, title: str) -> Iterator[str]:
        if self.action != "keep":
            yield f"{self.action} the flow {self.flow_id or title}"
        for line in self.changes[:MAX_SHOWN]:
            yield f"  {line}"
        if len(self.changes) > MAX_SHOWN:
            yield f"  and {len(self.changes) - MAX_SHOWN} more"


@dataclass(frozen=True)
class Plan:
    """What would be done, in the order in which it is done. ``flows`` has an entry for each flow, by
    its name; the build flow is the first.
    """

    functions: list[FunctionChange]
    flows: dict[str, FlowChange]
    wanted: Wanted

    @property
    def flow(self) -> Literal["create", "update", "keep"]:
        """What is done with the build flow."""
        return self.flows[BUILD_FLOW].action

    @property
    def flow_id(self) -> str | None:
        return self.flows[BUILD_FLOW].flow_id

    @property
    def changes(self) -> list[str]:
        return self.flows[BUILD_FLOW].changes

    @property
    def changes_nothing(self) -> bool:
        same = all(f.action == "keep" and not f.changes for f in self.flows.values())
        return same and not self.registrations

    @property
    def registrations(self) -> list[FunctionChange]:
        return [change for change in self.functions if change.why is not None]

    @property
    def endpoints(self) -> dict[str, str]:
        return {"build": self.wanted.build_endpoint, "run": self.wanted.run_endpoint}

    def lines(self) -> Iterator[str]:
        """The plan for a person: one line for each thing that would be done."""
        if self.changes_nothing:
            yield "nothing would change"
            return
        for change in self.functions:
            if change.why is not None or change.new_sha256 is None:
                yield str(change)
        kept = sum(1 for c in self.functions if c.why is None and c.new_sha256 is not None)
        if kept:
            yield f"keep {kept} functions as they are"
        for name, flow in self.flows.items():
            yield from flow.lines(str(self.wanted.flows[name].source.about["title"]))

    def as_dict(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "changes_nothing": self.changes_nothing,
            "functions": [
                {
                    "name": change.name,
                    "old_sha256": change.old_sha256,
                    "new_sha256": change.new_sha256,
                    "id": change.id,
                    "register": change.why,
                }
                for change in self.functions
            ],
            "flow": self.flows[BUILD_FLOW].as_dict(),
            "flows": {name: flow.as_dict() for name, flow in self.flows.items()},
            "endpoints": self.endpoints,
            "roles": self.wanted.roles,
            "subscription_id": self.wanted.subscription_id,
            "data_access": self.wanted.data_access,
        }


def make_plan(
    before: Deployment | None,
    deployed: Mapping[str, Mapping[str, Any] | None],
    wanted: Wanted,
    gone: set[str],
    force: bool = False,
) -> Plan:
    """Compares what is wanted with the record ``before`` and the flows that are ``deployed``, by name.

    ``gone`` names functions of the record that Globus no longer has.
    """
    functions = []
    for name, bundle in wanted.bundles.items():
        old = before.functions.get(name) if before else None
        why: Literal["new", "changed", "gone from Globus", "forced"] | None = None
        if old is None:
            why = "new"
        elif old.sha256 != bundle.sha256:
            why = "changed"
        elif name in gone:
            why = "gone from Globus"
        elif force:
            why = "forced"
        functions.append(
            FunctionChange(
                name, old.sha256 if old else None, bundle.sha256, old.id if old else None, why
            )
        )
    for name, old in (before.functions if before else {}).items():
        if name not in wanted.bundles:
            functions.append(FunctionChange(name, old.sha256, None, old.id, None))
    ids = {
        change.name: change.id if change.why is None and change.id else f"(new) {change.name}"
        for change in functions
        if change.new_sha256 is not None
    }
    is_new = any(change.why for change in functions)
    flows = {}
    for name, flow in wanted.flows.items():
        was = before.flows.get(name) if before else None
        there = deployed.get(name)
        if before is None or was is None or there is None:
            flows[name] = FlowChange("create", None, [])
            continue
        changes = list(flow_differences(there, flow.document(ids)))
        changes += _settings_changes(was, flow, before.subscription_id)
        needs_update = changes or force or is_new
        action: Literal["update", "keep"] = "update" if needs_update else "keep"
        if name == BUILD_FLOW and wanted.data_access != before.data_access:
            # asked for when a run is started: the record alone says so
            was_access, is_access = _short(before.data_access), _short(wanted.data_access)
            changes.append(f"data access: {was_access} -> {is_access}")
        flows[name] = FlowChange(action, was.flow_id, changes)
    return Plan(functions, flows, wanted)


def _settings_changes(before: DeployedFlow, wanted: Wanted, subscription_id: str) -> Iterator[str]:
    """What the flow's document does not show. Roles that the files and the deployer have not changed
    are left alone: an administrator may have set others in the web app.
    """
    for role, principals in wanted.roles.items():
        was = before.roles.get(role, [])
        if principals != was:
            yield f"{role}: {_short(was)} -> {_short(principals)}"
    if wanted.subscription_id != subscription_id:
        was_id, is_id = subscription_id or "none", wanted.subscription_id or "none"
        yield f"subscription: {was_id} -> {is_id}"


def flow_differences(deployed: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Where a flow that the service returned differs from the one that is wanted, as
    ``path: old -> new``. Fields that the service left out of its answer are not compared.
    """
    for key, value in wanted.items():
        if key in deployed:
            yield from differences(deployed[key], value, key)


def differences(old: Any, new: Any, path: str) -> Iterator[str]:
    """Where two JSON values differ, as ``path: old -> new`` with the parts shortened."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            place = f"{path}.{key}"
            if key not in new:
                yield f"{place}: {_short(old[key])} -> (gone)"
            elif key not in old:
                yield f"{place}: (not there) -> {_short(new[key])}"
            else:
                yield from differences(old[key], new[key], place)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif old != new:
        yield f"{path}: {_short(old)} -> {_short(new)}"


def _short(value: Any, limit: int = 60) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
