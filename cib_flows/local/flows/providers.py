"""What an Action state says about its provider: where it is, its scope, and as whom it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .documents import flow_scope

__all__ = [
    "action_url",
    "flow_of",
    "given_scope",
    "handler_problem",
    "normal_url",
    "run_as",
    "scope",
]

State = Mapping[str, Any]

# What the hosts' providers answer when they are asked for their scope.
SCOPES = {
    "transfer.actions.globus.org": "urn:globus:auth:scope:transfer.api.globus.org:all",
    "compute.actions.globus.org": (
        "https://auth.globus.org/scopes/b3db7e59-a6f1-4947-95c2-59d6b7a70f8c/action_all"
    ),
}
# The address that flow documents name, and the one that the API has.
FLOW_HOSTS = ("flows.globus.org", "flows.automate.globus.org")
FLOW_PATH = re.compile(r"/flows/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)


def handler_problem(state: State) -> str | None:
    """Why the local Globus cannot run the state's handler, or None."""
    handler = state.get("Handler")
    if handler is None or (isinstance(handler, dict) and handler.get("Type") == "ActionProvider"):
        return None
    return "the local Globus runs handlers of type 'ActionProvider' only, no registered APIs"


def action_url(state: State) -> str:
    """The provider's address as the definition writes it."""
    handler = state.get("Handler")
    return str(handler["Url"] if isinstance(handler, dict) else state["ActionUrl"])


def normal_url(url: str) -> str:
    """``url`` as providers are looked up: the case of the host and a trailing slash make no
    difference."""
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def given_scope(state: State) -> str | None:
    """The scope that the definition names itself."""
    handler = state.get("Handler")
    scope = handler.get("Scope") if isinstance(handler, dict) else state.get("ActionScope")
    return None if scope is None else str(scope)


def scope(state: State) -> str:
    """The scope that the provider needs."""
    url = normal_url(action_url(state))
    flow_id = flow_of(url)
    if flow_id is not None:
        return given_scope(state) or flow_scope(flow_id)
    return given_scope(state) or SCOPES.get(urlsplit(url).netloc, f"{url}/action_all")


def flow_of(url: str) -> str | None:
    """The id of the flow whose address ``url`` is; None for every other address."""
    parts = urlsplit(url)
    found = FLOW_PATH.fullmatch(parts.path.rstrip("/"))
    if parts.netloc.lower() not in FLOW_HOSTS or found is None:
        return None
    return found.group(1).lower()


def run_as(state: State) -> str:
    """``User``, ``Flow``, or the name of a role."""
    return str(state.get("RunAs", "User"))
