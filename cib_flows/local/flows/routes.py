"""The Flows service at the wire: paths, bodies and error documents."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cib_flows.local.actions import Identity
from cib_flows.local.database import DiskFull

from . import token_scopes as scopes
from .errors import Refusal, unprocessable
from .lists import ListQuery, read_query

if TYPE_CHECKING:
    from .service import FlowsService

__all__ = ["flow_routes"]

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 2_000_000
Answer = dict[str, Any]
Handler = Callable[[Request], Awaitable[Answer]]


def flow_routes(service: FlowsService) -> list[Route]:
    """The routes of ``service``. ``request.state.identity`` must have been set by the server's
    middleware, and ``request.state.scopes`` may be."""

    async def create_flow(request: Request) -> Answer:
        return service.create_flow(_identity(request), await _body(request))

    async def validate_flow(request: Request) -> Answer:
        _identity(request)
        return service.validate_flow(await _body(request))

    async def list_flows(request: Request) -> Answer:
        return service.list_flows(_identity(request), _list_query(request))

    async def get_flow(request: Request) -> Answer:
        return service.get_flow(_identity(request), _id(request))

    async def update_flow(request: Request) -> Answer:
        return service.update_flow(_identity(request), _id(request), await _body(request))

    async def delete_flow(request: Request) -> Answer:
        return service.delete_flow(_identity(request), _id(request))

    async def run_flow(request: Request) -> Answer:
        return service.run_flow(_identity(request), _id(request), await _body(request))

    async def validate_run(request: Request) -> Answer:
        return service.validate_run(_identity(request), _id(request), await _body(request))

    async def list_runs(request: Request) -> Answer:
        return service.list_runs(_identity(request), _list_query(request))

    async def get_run(request: Request) -> Answer:
        return service.get_run(_identity(request), _id(request), request.query_params)

    async def update_run(request: Request) -> Answer:
        return service.update_run(_identity(request), _id(request), await _body(request))

    async def get_run_definition(request: Request) -> Answer:
        return service.get_run_definition(_identity(request), _id(request))

    async def get_run_logs(request: Request) -> Answer:
        return service.get_run_logs(_identity(request), _id(request), request.query_params)

    async def cancel_run(request: Request) -> Answer:
        return await service.cancel_run(_identity(request), _id(request))

    async def resume_run(request: Request) -> Answer:
        run = service.get_run(_identity(request), _id(request), {})
        scopes.require_scope(request, scopes.RESUME, run["flow_id"])
        return service.resume_run(_identity(request), _id(request))

    async def release_run(request: Request) -> Answer:
        return service.release_run(_identity(request), _id(request))

    async def notifications(request: Request) -> Answer:
        return service.notifications(_identity(request))

    async def list_registered_apis(request: Request) -> Answer:
        # None can be registered here; a definition that names one is refused.
        return {"registered_apis": [], "limit": 20, "has_next_page": False, "marker": None}

    async def list_web_inputs(request: Request) -> Answer:
        return service.web_inputs.page(_identity(request), request.query_params)

    async def get_web_input(request: Request) -> Answer:
        return service.web_inputs.get(_identity(request), _id(request))

    async def respond_to_web_input(request: Request) -> Answer:
        return service.web_inputs.respond(_identity(request), _id(request), await _body(request))

    return [
        # Not in the hosted service, which writes e-mails.
        _route("GET", "/local/notifications", notifications, scopes.VIEW_RUNS),
        _route("GET", "/registered_apis", list_registered_apis, scopes.VIEW_FLOWS),
        _route("GET", "/web_inputs", list_web_inputs, scopes.ASKED),
        _route("GET", "/web_inputs/{id}", get_web_input, scopes.ASKED),
        _route("POST", "/web_inputs/{id}/respond", respond_to_web_input, scopes.ASKED),
        _route("POST", "/flows", create_flow, scopes.MANAGE_FLOWS, status=201),
        _route("GET", "/flows", list_flows, scopes.VIEW_FLOWS),
        _route("POST", "/flows/validate", validate_flow, scopes.MANAGE_FLOWS),
        _route("GET", "/flows/{id}", get_flow, scopes.VIEW_FLOWS),
        _route("PUT", "/flows/{id}", update_flow, scopes.MANAGE_FLOWS),
        _route("DELETE", "/flows/{id}", delete_flow, scopes.MANAGE_FLOWS),
        _route("POST", "/flows/{id}/run", run_flow, scopes.FLOW_USER, status=201),
        _route("POST", "/flows/{id}/validate_run", validate_run, scopes.FLOW_USER),
        _route("GET", "/runs", list_runs, scopes.VIEW_RUNS),
        _route("GET", "/runs/{id}", get_run, scopes.VIEW_RUNS),
        _route("PUT", "/runs/{id}", update_run, scopes.MANAGE_RUNS),
        _route("GET", "/runs/{id}/definition", get_run_definition, scopes.VIEW_RUNS),
        _route("GET", "/runs/{id}/log", get_run_logs, scopes.VIEW_RUNS),
        _route("POST", "/runs/{id}/cancel", cancel_run, scopes.MANAGE_RUNS, status=202),
        _route("POST", "/runs/{id}/resume", resume_run, scopes.IN_HANDLER),
        _route("POST", "/runs/{id}/release", release_run, scopes.MANAGE_RUNS),
    ]


class _Answer(JSONResponse):
    def render(self, content: Any) -> bytes:
        # Escaped, since a run's document may hold halves of surrogate pairs, which UTF-8 lacks.
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def _route(
    method: str, path: str, handler: Handler, allowed: tuple[str, ...], status: int = 200
) -> Route:
    async def answer(request: Request) -> Response:
        try:
            _identity(request)
            scopes.require_scope(request, allowed)
            return _Answer(await handler(request), status_code=status)
        except Refusal as refusal:
            return _Answer(refusal.document(), status_code=refusal.status)
        except (ClientDisconnect, DiskFull, RecursionError):
            raise  # the server answers these for every service
        except Exception:
            logger.exception("%s %s", method, request.url.path)
            failure = Refusal(
                500, "INTERNAL_SERVER_ERROR", "The local Globus met an internal error."
            )
            return _Answer(failure.document(), status_code=failure.status)

    return Route(path, answer, methods=[method])


def _identity(request: Request) -> Identity:
    identity = getattr(request.state, "identity", None)
    if not isinstance(identity, Identity):
        raise Refusal(401, "AUTHENTICATION_ERROR", "Expired or invalid Bearer token")
    return identity


def _list_query(request: Request) -> ListQuery:
    return read_query(request.query_params.multi_items())


def _id(request: Request) -> str:
    return str(request.path_params["id"])


async def _body(request: Request) -> dict[str, Any]:
    """The request's JSON object.

    :raises Refusal: 413 when it is too large, 422 when it is anything else
    """
    text = b""
    async for chunk in request.stream():
        text += chunk
        if len(text) > MAX_BODY_BYTES:
            raise Refusal(
                413, "PAYLOAD_TOO_LARGE", f"A request body may have {MAX_BODY_BYTES} bytes."
            )
    try:
        body = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        problem = {
            "loc": ["__root__"],
            "msg": f"the body is not JSON: {error}",
            "type": "value_error.jsondecode",
        }
        raise unprocessable([problem]) from error
    if not isinstance(body, dict):
        raise unprocessable(
            [{"loc": ["__root__"], "msg": "value is not a valid dict", "type": "type_error.dict"}]
        )
    return body


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")
