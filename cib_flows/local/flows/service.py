"""The Flows service: what each request does, for whom."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.routing import Route

from cib_flows.local.actions import ActionProvider, Identity
from cib_flows.local.database import Database

from . import documents, flow_list, paging, roles, routes, run_list, submissions
from .errors import Refusal, unprocessable
from .flow_actions import FlowActions
from .interpreter import Interpreter
from .lists import ListQuery
from .notifications import Notifications
from .parameters import without_private
from .providers import action_url, given_scope, handler_problem, run_as, scope
from .role_tokens import Identify, RoleTokens
from .store import ENDED, Flow, LogEntry, Run, RunSummary, Store, now_text
from .web_input_requests import WebInputRequests
from .web_inputs import LIFETIME, WebInputs

__all__ = ["FlowsService"]

TOKEN_LIFETIME = 172_800
LOG_PAGE = 10
Document = dict[str, Any]


class FlowsService:
    """Flows and runs, kept in ``database``.

    :param providers: action providers by their production ActionUrl
    :param base_url: where the service answers, for the URLs in flow documents
    :param web_input_lifetime: seconds for which people may answer a run's question
    :param identify: whose a token is that a run brought for a role; None for one that is not valid
    """

    def __init__(
        self,
        database: Database,
        providers: Mapping[str, ActionProvider],
        base_url: str,
        web_input_lifetime: float = LIFETIME,
        identify: Identify = lambda token: None,
    ) -> None:
        self._store = Store(database)
        self._web_inputs = WebInputs(database, web_input_lifetime)
        self._roles = RoleTokens(database, identify)
        self._notifications = Notifications(database)
        self._interpreter = Interpreter(
            self._store,
            self._web_inputs,
            self._roles,
            providers,
            FlowActions(self, self._store),
            self._on_rest,
        )
        self.web_inputs = WebInputRequests(self._web_inputs, self._store, self._run_roles)
        self._urls = sorted(providers)
        self._base_url = base_url.rstrip("/")

    def routes(self) -> list[Route]:
        return routes.flow_routes(self)

    async def start(self) -> None:
        """Take up the runs that were ACTIVE; call it on the loop that serves the routes."""
        self._web_inputs.close_ended()
        self._roles.forget_ended()
        await self._interpreter.start()

    async def stop(self) -> None:
        """Leave every run where it is."""
        await self._interpreter.stop()

    async def settled(self, run_id: str) -> None:
        """Return when the run has ended or is INACTIVE; at once for a run that is not known."""
        await self._interpreter.settled(run_id)

    def _on_rest(self, run_id: str) -> None:
        run = self._store.summary(run_id)
        if run is not None:
            self._notifications.changed(run)
            self._web_inputs.close_ended()
            self._roles.forget_ended()

    def notifications(self, identity: Identity) -> Document:
        """What the service would have written to the caller by e-mail."""
        return {"notifications": self._notifications.sent(identity.urn)}

    # --- flows ------------------------------------------------------------------------------------

    def create_flow(self, identity: Identity, body: Mapping[str, Any]) -> Document:
        content = submissions.flow_content(body, None, self._action_problem)
        now = now_text()
        flow = Flow(str(uuid.uuid4()), identity.urn, now, now, content)
        self._store.add_flow(flow)
        return self._flow_document(flow, identity)

    def validate_flow(self, body: Mapping[str, Any]) -> Document:
        given = {
            name: body[name]
            for name in ("definition", "input_schema")
            if body.get(name) is not None
        }
        problems = submissions.flow_problems(given, self._action_problem)
        if "definition" not in given:
            problems.append(
                {"loc": ["definition"], "msg": "field required", "type": "value_error.missing"}
            )
        if problems:
            raise unprocessable(problems)
        scopes: dict[str, set[str]] = {"User": set()}
        for state in given["definition"]["States"].values():
            if state["Type"] == "Action":
                scopes.setdefault(run_as(state), set()).add(scope(state))
        return {"scopes": {name: sorted(found) for name, found in scopes.items()}}

    def get_flow(self, identity: Identity, flow_id: str) -> Document:
        return self._flow_document(self._flow(identity, flow_id, "VIEW"), identity)

    def update_flow(self, identity: Identity, flow_id: str, body: Mapping[str, Any]) -> Document:
        flow = self._flow(identity, flow_id, "UPDATE")
        flow.content = submissions.flow_content(body, flow.content, self._action_problem)
        owner = body.get("flow_owner")
        if owner is not None:
            if not isinstance(owner, str) or not submissions.URN.fullmatch(owner):
                message = f"an identity URN is expected, not {owner!r}"
                raise unprocessable(
                    [{"loc": ["flow_owner"], "msg": message, "type": "value_error"}]
                )
            flow.owner = owner
        flow.updated_at = now_text()
        self._store.change_flow(flow)
        return self._flow_document(flow, identity)

    def delete_flow(self, identity: Identity, flow_id: str) -> Document:
        flow = self._flow(identity, flow_id, "DELETE")
        deleted_at = now_text()
        self._store.delete_flow(flow.id, deleted_at)
        return documents.deleted_flow_document(self._flow_document(flow, identity), deleted_at)

    def list_flows(self, identity: Identity, query: ListQuery) -> Document:
        shown = (
            self._flow_document(flow, identity)
            for flow in self._store.flows()
            if roles.flow_roles(flow, identity)
        )
        return flow_list.page(shown, query)

    # --- starting runs ----------------------------------------------------------------------------

    def validate_run(self, identity: Identity, flow_id: str, body: Mapping[str, Any]) -> Document:
        flow = self._flow(identity, flow_id, "RUN")
        submissions.run_submission(body, with_input=True)
        given, _ = self._roles.take(body["body"])
        submissions.check_input(given, flow.content["input_schema"])
        return {"message": "validation successful"}

    def run_flow(
        self,
        identity: Identity,
        flow_id: str,
        body: Mapping[str, Any],
        run_id: str | None = None,
    ) -> Document:
        """Start a run, with an id of its own unless ``run_id`` is given; must be called on the
        service's loop."""
        flow = self._flow(identity, flow_id, "RUN")
        submission = submissions.run_submission(body, with_input=True)
        given, tokens = self._roles.take(body["body"])
        submissions.check_input(given, flow.content["input_schema"])
        definition = flow.content["definition"]
        run_id = run_id or str(uuid.uuid4())
        now = int(time.time())
        context = {
            "flow_id": flow.id,
            "run_id": run_id,
            "username": identity.username,
            "email": identity.email,
            "user_id": identity.urn,
            "identities": [identity.urn],
            "token_info": {"exp": now + TOKEN_LIFETIME, "iat": now, "nbf": now},
        }
        run = Run(
            run_id,
            flow.id,
            definition,
            identity,
            context,
            given,
            definition["StartAt"],
            0,
            None,
            False,
        )
        submission["flow_title"] = flow.content["title"]
        submission["flow_last_updated"] = flow.updated_at
        entry = LogEntry(
            "FlowStarted",
            "The Flow Instance started execution",
            {"input": without_private(given)},
        )
        with self._store.transaction():
            self._roles.keep(run_id, tokens)
            self._store.add_run(run, submission, flow.content["input_schema"], entry.time, entry)
        self._interpreter.launch(run_id)
        return self.get_run(identity, run_id, {})

    # --- runs -------------------------------------------------------------------------------------

    def get_run(self, identity: Identity, run_id: str, query: Mapping[str, str]) -> Document:
        run = self._run(identity, run_id, "VIEW")
        flow = (
            self._store.flow(run.flow_id)
            if paging.flag(query, "include_flow_description")
            else None
        )
        return self._run_document(run, identity, flow)

    def get_run_definition(self, identity: Identity, run_id: str) -> Document:
        run = self._run(identity, run_id, "VIEW")
        definition, input_schema = self._store.run_definition(run.id)
        return {"flow_id": run.flow_id, "definition": definition, "input_schema": input_schema}

    def get_run_logs(self, identity: Identity, run_id: str, query: Mapping[str, str]) -> Document:
        run = self._run(identity, run_id, "VIEW")
        size = paging.limit(query, LOG_PAGE)
        numbered = self._store.log(
            run.id, size + 1, paging.place(query), paging.flag(query, "reverse_order")
        )
        page = numbered[:size]
        document: Document = {
            "limit": size,
            "has_next_page": len(numbered) > size,
            "entries": [entry.document() for _, entry in page],
        }
        if document["has_next_page"]:
            document["marker"] = paging.marker(page[-1][0])
        return document

    def list_runs(self, identity: Identity, query: ListQuery) -> Document:
        flows: dict[str, Flow | None] = {}

        def roles_of(run: RunSummary) -> list[str]:
            if run.flow_id not in flows:
                flows[run.flow_id] = self._store.flow(run.flow_id)
            return roles.run_roles(run, flows[run.flow_id], identity)

        return run_list.page(self._store.summaries, roles_of, self._latest, query)

    def update_run(self, identity: Identity, run_id: str, body: Mapping[str, Any]) -> Document:
        run = self._run(identity, run_id, "MANAGE")
        run.submission.update(submissions.run_submission(body, with_input=False))
        self._store.change_submission(run.id, run.submission)
        return self._run_document(run, identity)

    async def cancel_run(self, identity: Identity, run_id: str) -> Document:
        run = self._run(identity, run_id, "MANAGE")
        _require_status(run, {"ACTIVE", "INACTIVE"})
        await self._interpreter.cancel(run.id)
        return self.get_run(identity, run_id, {})

    def resume_run(self, identity: Identity, run_id: str) -> Document:
        run = self._run(identity, run_id, "RESUME")
        _require_status(run, {"INACTIVE"})
        self._store.wake_run(
            run.id, LogEntry("FlowResumed", "The Flow Instance was resumed by the user", {})
        )
        self._interpreter.launch(run.id)
        return self.get_run(identity, run_id, {})

    def release_run(self, identity: Identity, run_id: str) -> Document:
        """Remove an ended run and its log."""
        run = self._run(identity, run_id, "MANAGE")
        _require_status(run, set(ENDED))
        document = self._run_document(run, identity)
        with self._store.transaction():
            self._web_inputs.forget(run.id)
            self._notifications.forget(run.id)
            self._store.delete_run(run.id)
        return document

    # --- for all of them --------------------------------------------------------------------------

    def _flow(self, identity: Identity, flow_id: str, permission: str) -> Flow:
        """:raises Refusal: 404 when there is no such flow for this identity, 403 when it may only
        look at it"""
        flow = self._store.flow(_uuid(flow_id, "flow_id"))
        user_roles = [] if flow is None else roles.flow_roles(flow, identity)
        if flow is None or not user_roles:
            raise Refusal(404, "NOT_FOUND", f"No Flow exists with id value {flow_id}")
        if permission not in roles.flow_permissions(user_roles):
            raise _forbidden("flow", flow_id, permission)
        return flow

    def _run(self, identity: Identity, run_id: str, permission: str) -> RunSummary:
        """:raises Refusal: as :meth:`_flow`"""
        run = self._store.summary(_uuid(run_id, "run_id"))
        user_roles = [] if run is None else self._run_roles(run, identity)
        if run is None or not user_roles:
            raise Refusal(404, "NOT_FOUND", f"No Run exists with id value {run_id}")
        if permission not in roles.run_permissions(user_roles):
            raise _forbidden("run", run_id, permission)
        return run

    def _run_roles(self, run: RunSummary, identity: Identity) -> list[str]:
        return roles.run_roles(run, self._store.flow(run.flow_id), identity)

    def _flow_document(self, flow: Flow, identity: Identity) -> Document:
        # An owner who gave the flow away may have no role left.
        user_roles = roles.flow_roles(flow, identity) or ["none"]
        return documents.flow_document(flow, user_roles, self._base_url)

    def _run_document(
        self, run: RunSummary, identity: Identity, flow: Flow | None = None
    ) -> Document:
        return documents.run_document(run, self._latest(run), self._run_roles(run, identity), flow)

    def _latest(self, run: RunSummary) -> LogEntry | None:
        if run.outcome is not None:
            return None
        entries = self._store.log(run.id, 1, newest_first=True)
        return entries[0][1] if entries else None

    def _action_problem(self, state: Mapping[str, Any]) -> str | None:
        problem = handler_problem(state)
        if problem is not None:
            return problem
        url = action_url(state)
        # With a scope of its own the real service asks nobody; the run will fail if nobody answers
        # then.
        if self._interpreter.knows(url) or given_scope(state) is not None:
            return None
        return f"No action provider answers at {url} here; known are {', '.join(self._urls)}"


def _uuid(text: str, name: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        problem = {"loc": [name], "msg": "value is not a valid uuid", "type": "type_error.uuid"}
        raise unprocessable([problem]) from None


def _forbidden(kind: str, name: str, permission: str) -> Refusal:
    return Refusal(
        403,
        "FORBIDDEN",
        f"You do not have the necessary permissions to perform this action on the {kind} with id"
        f" value {name}."
        f" Missing permissions: {permission}.",
    )


def _require_status(run: RunSummary, allowed: set[str]) -> None:
    if run.status not in allowed:
        listed = ", ".join(f"'{name}'" for name in sorted(allowed))
        raise Refusal(
            409,
            "STATE_CONFLICT",
            f"Run {run.id} has status '{run.status}' but must have status in {{{listed}}} for"
            " requested operation",
        )
