"""The documents that the service answers with."""

from __future__ import annotations

from typing import Any

from .store import Flow, LogEntry, RunSummary

__all__ = ["deleted_flow_document", "flow_document", "flow_scope", "run_document"]


def flow_scope(flow_id: str) -> str:
    """The scope a token needs to start the flow."""
    return f"https://auth.globus.org/scopes/{flow_id}/flow_{flow_id.replace('-', '_')}_user"


# Who may see a flow's roles, and a run's; to others the lists are empty.
SEE_FLOW_ROLES = {"flow_owner", "flow_administrator"}
SEE_RUN_ROLES = {"run_owner", "run_manager", "flow_run_manager"}
FLOW_ROLES = (
    *("flow_viewers", "flow_starters", "flow_administrators"),
    *("run_managers", "run_monitors"),
)


def flow_document(flow: Flow, user_roles: list[str], base_url: str) -> dict[str, Any]:
    content = flow.content
    if not SEE_FLOW_ROLES & set(user_roles):
        content = {**content, **{name: [] for name in FLOW_ROLES}}
    url = f"{base_url}/flows/{flow.id}"
    return {
        "id": flow.id,
        **content,
        "globus_auth_scope": flow_scope(flow.id),
        "globus_auth_username": f"{flow.id}@clients.auth.globus.org",
        "principal_urn": f"urn:globus:auth:identity:{flow.id}",
        "synchronous": False,
        "log_supported": True,
        "types": ["Action"],
        "api_version": "1.0",
        "created_at": flow.created_at,
        "updated_at": flow.updated_at,
        "created_by": flow.owner,
        "flow_owner": flow.owner,
        "user_role": user_roles[0],
        "user_roles": user_roles,
        # The names of the roles before 2021, which the service still answers with.
        "visible_to": content["flow_viewers"],
        "runnable_by": content["flow_starters"],
        "administered_by": content["flow_administrators"],
        "action_url": url,
        "flow_url": url,
    }


def deleted_flow_document(document: dict[str, Any], deleted_at: str) -> dict[str, Any]:
    return {**document, "DELETED": True, "deleted_at": deleted_at}


def run_document(
    run: RunSummary, latest: LogEntry | None, user_roles: list[str], flow: Flow | None = None
) -> dict[str, Any]:
    """A run as shown. While it is ACTIVE its details are its ``latest`` log entry; with ``flow`` it
    carries the flow's description."""
    submission = run.submission
    sees_roles = bool(SEE_RUN_ROLES & set(user_roles))
    managers = submission.get("run_managers", []) if sees_roles else []
    monitors = submission.get("run_monitors", []) if sees_roles else []
    document = {
        "run_id": run.id,
        "action_id": run.id,
        "flow_id": run.flow_id,
        "flow_title": submission["flow_title"],
        "flow_last_updated": submission["flow_last_updated"],
        "start_time": run.start_time,
        "completion_time": run.completion_time,
        "status": run.status,
        "display_status": run.status,
        "details": _details(run, latest),
        "label": submission.get("label"),
        "tags": submission.get("tags", []),
        "run_owner": run.owner,
        "created_by": run.owner,
        "run_managers": managers,
        "run_monitors": monitors,
        "manage_by": managers,
        "monitor_by": monitors,
        "user_role": user_roles[0],
        "user_roles": user_roles,
        "blocking_web_input_id": run.web_input_id,
    }
    if flow is not None:
        document["flow_description"] = {
            "id": flow.id,
            "title": flow.content["title"],
            "subtitle": flow.content["subtitle"],
            "description": flow.content["description"],
            "keywords": flow.content["keywords"],
            "created_at": flow.created_at,
            "updated_at": flow.updated_at,
            "created_by": flow.owner,
            "flow_owner": flow.owner,
            "globus_auth_scope": flow_scope(flow.id),
        }
    return document


def _details(run: RunSummary, latest: LogEntry | None) -> dict[str, Any]:
    if run.outcome is not None:
        return run.outcome
    if latest is None or latest.code == "FlowStarted":
        return {
            "code": "FlowStarting",
            "description": "The Flow is starting execution",
            "details": {} if latest is None else latest.details,
        }
    return latest.document()
