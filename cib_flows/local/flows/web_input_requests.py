"""What the API says about web inputs, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cib_flows.local.actions import Identity

from . import paging
from .errors import Refusal, unprocessable
from .question import GROUPS
from .store import RunSummary, Store
from .web_inputs import WebInput, WebInputs

__all__ = ["WebInputRequests"]

PAGE = 20
ORDER = ("created_timestamp", "edited_timestamp", "closed_timestamp")

Document = dict[str, Any]
RunRoles = Callable[[RunSummary, Identity], list[str]]


class WebInputRequests:
    """:param run_roles: the roles of an identity on a run"""

    def __init__(self, web_inputs: WebInputs, store: Store, run_roles: RunRoles) -> None:
        self._web_inputs = web_inputs
        self._store = store
        self._run_roles = run_roles

    def page(self, identity: Identity, query: Mapping[str, str]) -> Document:
        """The caller's web inputs, a page at a time."""
        wanted = {
            "filter_roles": paging.names(query, "filter_roles", ("viewer", "respondent")),
            "filter_states": paging.names(query, "filter_states", ("open", "closed")),
            "filter_flow_ids": paging.names(query, "filter_flow_ids"),
            "filter_run_ids": paging.names(query, "filter_run_ids"),
        }
        found = []
        for asked in self._web_inputs.all():
            run = self._store.summary(asked.run_id)
            user_roles = self._roles(asked, run, identity)
            facts = {
                "filter_roles": set(user_roles),
                "filter_states": {asked.status},
                "filter_flow_ids": {asked.flow_id},
                "filter_run_ids": {asked.run_id},
            }
            if user_roles and all(not names or names & facts[key] for key, names in wanted.items()):
                found.append(self._summary(asked, run, user_roles))
        for name, descending in reversed(_order(query.get("orderby"))):
            found.sort(key=lambda document: str(document[name] or ""), reverse=descending)
        first = paging.place(query) or 0
        size = paging.limit(query, PAGE, "per_page")
        more = first + size < len(found)
        return {
            "web_input_summaries": found[first : first + size],
            "marker": paging.marker(first + size) if more else None,
        }

    def get(self, identity: Identity, web_input_id: str) -> Document:
        asked, run, user_roles = self._visible(identity, web_input_id)
        question = asked.question
        summary = self._summary(asked, run, user_roles)
        del summary["title"]
        return {
            **summary,
            "input_schema": question.input_schema(),
            "context": question.context,
            "options": question.options,
            "roles": {"viewer_urns": question.viewers, "respondent_urns": question.respondents},
            "creator_urn": asked.creator,
        }

    def respond(self, identity: Identity, web_input_id: str, body: Mapping[str, Any]) -> Document:
        """Answer a web input; must be called on the service's loop."""
        asked, _, user_roles = self._visible(identity, web_input_id)
        if "respondent" not in user_roles:
            raise Refusal(
                403,
                "FORBIDDEN",
                f"User does not have respondent role on web input {asked.id}",
            )
        response = body.get("response")
        if not isinstance(response, dict) or "value" not in response:
            raise unprocessable(
                [
                    {
                        "loc": ["response", "value"],
                        "msg": "field required",
                        "type": "value_error.missing",
                    }
                ]
            )
        option = response["value"]
        if asked.status == "open" and option not in [
            o["option_id"] for o in asked.question.options
        ]:
            raise Refusal(
                422,
                "UNPROCESSABLE_ENTITY",
                f"{option!r} is not a registered option id for this input.",
            )
        if asked.status == "closed" or not self._web_inputs.respond(asked.id, option):
            raise Refusal(409, "STATE_CONFLICT", f"Web Input {asked.id} is already closed.")
        return {"status": "ok"}

    def _visible(
        self, identity: Identity, web_input_id: str
    ) -> tuple[WebInput, RunSummary | None, list[str]]:
        asked = self._web_inputs.get(web_input_id.lower())
        run = None if asked is None else self._store.summary(asked.run_id)
        user_roles = [] if asked is None else self._roles(asked, run, identity)
        if asked is None or not user_roles:
            raise Refusal(404, "NOT_FOUND", f"No Web Input exists with id value {web_input_id}")
        return asked, run, user_roles

    def _roles(self, asked: WebInput, run: RunSummary | None, identity: Identity) -> list[str]:
        found = []
        sees_run = run is not None and bool(self._run_roles(run, identity))
        if sees_run or _named(identity, asked.question.viewers):
            found.append("viewer")
        if _named(identity, asked.question.respondents):
            found.append("respondent")
        return found

    def _summary(self, asked: WebInput, run: RunSummary | None, user_roles: list[str]) -> Document:
        submission = {} if run is None else run.submission
        return {
            "id": asked.id,
            "status": asked.status,
            "user_roles": user_roles,
            "input_type": "selection",
            "title": asked.question.title,
            "flow": {"id": asked.flow_id, "title": submission.get("flow_title")},
            "run": {"id": asked.run_id, "label": submission.get("label")},
            "created_timestamp": asked.created,
            "edited_timestamp": asked.closed_timestamp or asked.created,
            "closed_timestamp": asked.closed_timestamp,
        }


def _named(identity: Identity, urns: list[str]) -> bool:
    """The local Globus has no groups: a group stands for everybody in it."""
    return identity.urn in urns or any(urn.startswith(GROUPS) for urn in urns)


def _order(text: str | None) -> list[tuple[str, bool]]:
    found = []
    for part in (text or "created_timestamp DESC").split(","):
        name, _, direction = part.strip().partition(" ")
        if name not in ORDER or direction.upper() not in ("", "ASC", "DESC"):
            message = f"{part!r} is not a field and ASC or DESC; fields are {', '.join(ORDER)}"
            raise unprocessable([{"loc": ["orderby"], "msg": message, "type": "value_error"}])
        found.append((name, direction.upper() == "DESC"))
    return found
