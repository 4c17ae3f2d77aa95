"""Who may do what with a flow or a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cib_flows.local.actions import Identity

from .store import Flow, RunSummary

__all__ = [
    "ALL_USERS",
    "FLOW_PERMISSIONS",
    "PUBLIC",
    "RUN_PERMISSIONS",
    "flow_permissions",
    "flow_roles",
    "run_permissions",
    "run_roles",
]

PUBLIC = "public"
ALL_USERS = "all_authenticated_users"

# The role each field of a flow or run gives, the strongest first: the first one is the
# ``user_role``.
FLOW_FIELDS = (
    ("flow_administrators", "flow_administrator"),
    ("flow_starters", "flow_starter"),
    ("flow_viewers", "flow_viewer"),
    ("run_managers", "run_manager"),
    ("run_monitors", "run_monitor"),
)
RUN_FIELDS = (("run_managers", "run_manager"), ("run_monitors", "run_monitor"))
FLOW_RUN_FIELDS = (("run_managers", "flow_run_manager"), ("run_monitors", "flow_run_monitor"))

FLOW_PERMISSIONS = {
    "flow_owner": {"VIEW", "RUN", "UPDATE", "DELETE"},
    "flow_administrator": {"VIEW", "RUN", "UPDATE", "DELETE"},
    "flow_starter": {"VIEW", "RUN"},
    "flow_viewer": {"VIEW"},
    "run_manager": {"VIEW"},
    "run_monitor": {"VIEW"},
}
RUN_PERMISSIONS = {
    "run_owner": {"VIEW", "MANAGE", "RESUME"},
    "run_manager": {"VIEW", "MANAGE"},
    "flow_run_manager": {"VIEW", "MANAGE"},
    "run_monitor": {"VIEW"},
    "flow_run_monitor": {"VIEW"},
}


def _granted(
    fields: tuple[tuple[str, str], ...], content: Mapping[str, Any], principals: set[str]
) -> list[str]:
    return [role for field, role in fields if principals & set(content.get(field) or ())]


def flow_roles(flow: Flow, identity: Identity) -> list[str]:
    """The roles that ``identity`` has on ``flow``, the strongest first; empty when the flow is
    hidden from it."""
    owner = ["flow_owner"] if flow.owner == identity.urn else []
    return owner + _granted(FLOW_FIELDS, flow.content, {identity.urn, PUBLIC, ALL_USERS})


def run_roles(run: RunSummary, flow: Flow | None, identity: Identity) -> list[str]:
    """The roles that ``identity`` has on ``run``; those of its ``flow`` count while the flow
    exists."""
    owner = ["run_owner"] if run.owner == identity.urn else []
    own = owner + _granted(RUN_FIELDS, run.submission, {identity.urn})
    return own + (
        _granted(FLOW_RUN_FIELDS, flow.content, {identity.urn}) if flow is not None else []
    )


def flow_permissions(roles: list[str]) -> set[str]:
    return set().union(*(FLOW_PERMISSIONS[role] for role in roles))


def run_permissions(roles: list[str]) -> set[str]:
    return set().union(*(RUN_PERMISSIONS[role] for role in roles))
