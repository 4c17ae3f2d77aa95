"""The record of what is deployed to a Globus: a small JSON file without secrets.

It may be committed and shared: ``CIB_FLOWS_DEPLOYMENT`` names the file, otherwise each profile has
its own (``profiles.record_place``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cib_flows._version import __version__
from cib_flows.errors import NotDeployedError, UsageError
from cib_flows.files import write_whole
from cib_flows.flow_source import BUILD_FLOW
from cib_flows.profiles import Globus

__all__ = [
    "DeployedFlow",
    "Deployment",
    "RegisteredFunction",
    "leftovers_path",
    "load_deployment",
    "load_leftovers",
    "read_record",
    "remember_worker",
    "save_deployment",
    "save_leftovers",
]

RECORD_FORMAT = 1
WORKER_PACKAGES = ("globus-compute-endpoint", "parsl")


@dataclass(frozen=True)
class RegisteredFunction:
    """A function on Globus Compute and the sha256 of the text it was registered with."""

    id: str
    sha256: str


@dataclass(frozen=True)
class DeployedFlow:
    """A flow beside the build flow; the fields mean what they mean for that one."""

    flow_id: str
    flow_sha256: str
    roles: dict[str, list[str]] = field(default_factory=dict)
    given_roles: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployment:
    """What is deployed. ``flow_sha256`` covers everything the flow was created or updated with.

    ``worker`` holds the versions (``globus-compute-endpoint``, ``parsl``) last seen in an image
    that the build endpoint made, so that a recipe can be rendered without asking it. ``roles`` are
    those last sent, ``given_roles`` those among them that a deployer chose; ``data_access`` lists
    collections for whose consent runs ask; ``retired`` the functions of the deployment before,
    which runs that were under way then still call. ``further`` has the flows beside the build flow.
    """

    flow_id: str
    flow_sha256: str
    build_endpoint: str
    run_endpoint: str
    functions: dict[str, RegisteredFunction]
    roles: dict[str, list[str]] = field(default_factory=dict)
    worker: dict[str, str] = field(default_factory=dict)
    given_roles: dict[str, list[str]] = field(default_factory=dict)
    subscription_id: str = ""
    data_access: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    cib_flows: str = __version__
    further: dict[str, DeployedFlow] = field(default_factory=dict)

    @property
    def flows(self) -> dict[str, DeployedFlow]:
        """Every flow that is deployed, the build flow among them."""
        own = DeployedFlow(self.flow_id, self.flow_sha256, self.roles, self.given_roles)
        return {BUILD_FLOW: own, **self.further}

    @property
    def function_ids(self) -> dict[str, str]:
        """The UUID of each function by its name."""
        return {name: function.id for name, function in self.functions.items()}

    @property
    def allowed_functions(self) -> list[str]:
        """The UUIDs that an endpoint which lists what it allows has to list."""
        return sorted({*self.function_ids.values(), *self.retired})

    def function_id(self, name: str) -> str:
        """The UUID of a registered function; raises ``NotDeployedError`` when it is not among
        them.
        """
        try:
            return self.functions[name].id
        except KeyError:
            raise NotDeployedError(
                f"The deployment has no function {name}; run 'cib-flows deploy' again."
            ) from None


def load_deployment(globus: Globus) -> Deployment | None:
    """The record of what is deployed there, or None. Raises like ``read_record``."""
    return read_record(globus.record_path)


def read_record(path: Path) -> Deployment | None:
    """The deployment record in a file, or None where there is no file.

    Raises ``UsageError`` for a file that is not such a record.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        record = json.loads(text)
        if record["format"] != RECORD_FORMAT:
            raise UsageError(
                f"The deployment record {path} has format {record['format']}; this version reads "
                f"{RECORD_FORMAT}.",
                hint=(
                    "It was written by another version of cib-flows; 'cib-flows deploy --force' "
                    "writes it anew."
                ),
            )
        functions = {
            name: RegisteredFunction(str(entry["id"]), str(entry["sha256"]))
            for name, entry in record["functions"].items()
        }
        return Deployment(
            flow_id=str(record["flow_id"]),
            flow_sha256=str(record["flow_sha256"]),
            build_endpoint=str(record["build_endpoint"]),
            run_endpoint=str(record["run_endpoint"]),
            functions=functions,
            roles=dict(record.get("roles", {})),
            worker=dict(record.get("worker", {})),
            given_roles=dict(record.get("given_roles", {})),
            subscription_id=str(record.get("subscription_id", "")),
            data_access=[str(item) for item in record.get("data_access", [])],
            retired=[str(item) for item in record.get("retired", [])],
            cib_flows=str(record.get("cib_flows", "")),
            further={
                str(name): DeployedFlow(
                    str(flow["flow_id"]),
                    str(flow["flow_sha256"]),
                    dict(flow.get("roles", {})),
                    dict(flow.get("given_roles", {})),
                )
                for name, flow in record.get("further", {}).items()
            },
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(
            f"The file {path} is not a deployment record; move it away and run 'cib-flows deploy'."
        ) from None


def save_deployment(globus: Globus, deployment: Deployment) -> None:
    """Writes the record, the same bytes for the same deployment."""
    record = {"format": RECORD_FORMAT, "profile": globus.profile, **asdict(deployment)}
    write_whole(globus.record_path, json.dumps(record, indent=2, sort_keys=True) + "\n")


def remember_worker(
    globus: Globus, deployment: Deployment, packages: Mapping[str, Any]
) -> Deployment:
    """Keeps the versions of the Globus Compute packages that an image of this deployment holds."""
    worker = {name: str(packages[name]) for name in WORKER_PACKAGES if packages.get(name)}
    if len(worker) < len(WORKER_PACKAGES) or worker == deployment.worker:
        return deployment
    updated = replace(deployment, worker=worker)
    save_deployment(globus, updated)
    return updated


def leftovers_path(globus: Globus) -> Path:
    """Where functions are noted that a deployment registered and could not put to use."""
    return globus.record_path.with_suffix(".leftovers.json")


def load_leftovers(globus: Globus) -> dict[str, RegisteredFunction]:
    """Functions that an earlier attempt registered: the next one uses those whose text is still the
    same. A file that cannot be read is as good as none.
    """
    try:
        noted = json.loads(leftovers_path(globus).read_text(encoding="utf-8"))
        return {
            str(name): RegisteredFunction(str(entry["id"]), str(entry["sha256"]))
            for name, entry in noted.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def save_leftovers(globus: Globus, functions: Mapping[str, RegisteredFunction]) -> None:
    """Notes functions that are registered and not in use yet; with none, removes the note."""
    if not functions:
        leftovers_path(globus).unlink(missing_ok=True)
        return
    noted = {name: asdict(function) for name, function in functions.items()}
    write_whole(leftovers_path(globus), json.dumps(noted, indent=2, sort_keys=True) + "\n")
