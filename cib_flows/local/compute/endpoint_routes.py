"""The Compute service's routes about endpoints: the home's own, and those that daemons register."""

from __future__ import annotations

import platform
import socket
import time
import uuid
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.requests import Request

from cib_flows.local.compute.endpoint_store import Registration
from cib_flows.local.compute.requests import Handler, read_body, read_uuid
from cib_flows.local.compute.service import ComputeService
from cib_flows.local.compute.sites import SiteEndpoint
from cib_flows.local.compute.wire import ComputeError

__all__ = ["endpoint_handlers"]

LOCK_S = 60.0


def endpoint_handlers(service: ComputeService) -> list[tuple[str, str, Handler]]:
    """(method, path, handler) of every route about endpoints but submission."""
    handlers = _Handlers(service)
    one = "/endpoints/{endpoint_id}"
    return [
        ("POST", "/v3/endpoints", handlers.register),
        ("PUT", f"/v3{one}", handlers.update),
        ("POST", f"/v3{one}/lock", handlers.lock),
        ("GET", f"/v3{one}/allowed_functions", handlers.allowed_functions),
        ("GET", "/v2/endpoints", handlers.list),
        ("GET", f"/v2{one}", handlers.get),
        ("DELETE", f"/v2{one}", handlers.delete),
        ("GET", f"/v2{one}/status", handlers.status),
    ]


class _Handlers:
    def __init__(self, service: ComputeService) -> None:
        self._service = service
        self._daemons = service.daemons

    # -- for daemons ---------------------------------------------------------------------------

    async def register(self, request: Request) -> Any:
        return await self._register(request, str(uuid.uuid4()))

    async def update(self, request: Request) -> Any:
        endpoint_id = read_uuid(request.path_params["endpoint_id"], "endpoint_id")
        if endpoint_id == self._service.endpoint_id or self._service.sites.find(endpoint_id):
            raise ComputeError(
                409, "RESOURCE_CONFLICT", "This endpoint is built into the local Globus."
            )
        known = self._daemons.store.get(endpoint_id)
        if known is not None and known.locked_until > time.time():
            raise ComputeError(
                423, "RESOURCE_LOCKED", f"Endpoint {endpoint_id} is locked; try again later"
            )
        self._check_owner(request, known)
        return await self._register(request, endpoint_id)

    def _check_owner(self, request: Request, known: Registration | None) -> None:
        if known is not None and known.owner != request.state.identity.id:
            raise ComputeError(403, "FORBIDDEN", f"Endpoint {known.id} is somebody else's")

    async def _register(self, request: Request, endpoint_id: str) -> Any:
        body = await read_body(request)
        name = body.get("endpoint_name")
        if not isinstance(name, str) or not 0 < len(name) <= 128:
            raise ComputeError(
                422,
                "SEMANTICALLY_INVALID",
                "Request payload failed validation: endpoint_name must be a text of 1 to 128 characters",
            )
        allowed = body.get("allowed_functions")
        if allowed is not None:
            if not isinstance(allowed, list):
                raise ComputeError(
                    422,
                    "SEMANTICALLY_INVALID",
                    "Request payload failed validation: allowed_functions must be a list",
                )
            body["allowed_functions"] = [read_uuid(item, "allowed_functions") for item in allowed]
        owner = request.state.identity.id
        return await self._daemons.register(Registration(endpoint_id, owner, body))

    async def lock(self, request: Request) -> Any:
        endpoint_id = self._daemon(request).id
        until = time.time() + LOCK_S
        self._daemons.store.lock(endpoint_id, until)
        moment = datetime.fromtimestamp(until, timezone.utc).replace(tzinfo=None)
        return {"endpoint_id": endpoint_id, "lock_expiration_timestamp": moment.isoformat()}

    async def delete(self, request: Request) -> Any:
        self._daemons.store.delete(self._daemon(request).id)
        return {"result": 302}

    def _daemon(self, request: Request) -> Registration:
        endpoint_id = self._endpoint(request)
        found = self._daemons.store.get(endpoint_id)
        if found is None:
            raise ComputeError(
                409, "RESOURCE_CONFLICT", "This endpoint is built into the local Globus."
            )
        self._check_owner(request, found)
        return found

    # -- for users -----------------------------------------------------------------------------

    def _endpoint(self, request: Request) -> str:
        endpoint_id: str = request.path_params["endpoint_id"]
        self._service.check_endpoint(endpoint_id)
        return endpoint_id

    def _own_summary(self, site: SiteEndpoint | None = None) -> dict[str, Any]:
        name = site.name if site else "local"
        return {
            "uuid": site.id if site else self._service.endpoint_id,
            "name": name,
            "display_name": f"cib-flows {name}",
            "owner": self._service.identity.id,
        }

    async def list(self, request: Request) -> Any:
        sites = map(self._own_summary, self._service.sites.all())
        return [self._own_summary(), *sites, *map(_summary, self._daemons.store.all())]

    async def get(self, request: Request) -> Any:
        endpoint_id = self._endpoint(request)
        found = self._daemons.store.get(endpoint_id)
        site = self._service.sites.find(endpoint_id)
        return self._own_document(site) if found is None else _document(found)

    def _own_document(self, site: SiteEndpoint | None) -> dict[str, Any]:
        return {
            **self._own_summary(site),
            "multi_user": True,
            "public": False,
            "description": "The endpoint built into this local Globus",
            "hostname": socket.gethostname(),
            "endpoint_version": _installed("globus-compute-endpoint"),
            "sdk_version": _installed("globus-compute-sdk"),
            "python_version": platform.python_version(),
            "subscription_uuid": None,
            **self._service.endpoint_files(site.home if site else None),
        }

    async def status(self, request: Request) -> Any:
        endpoint_id = self._endpoint(request)
        own = self._service.engine_status(endpoint_id)
        if own is not None:
            return {"status": "online", "details": own}
        online = self._daemons.online(endpoint_id)
        return {
            "status": "online" if online else "offline",
            "details": self._daemons.figures(endpoint_id),
        }

    async def allowed_functions(self, request: Request) -> Any:
        endpoint_id = self._endpoint(request)
        allowed = self._service.allowed_functions(endpoint_id)
        return {
            "endpoint_id": endpoint_id,
            "restricted": allowed is not None,
            "functions": allowed or [],
        }


def _summary(registration: Registration) -> dict[str, Any]:
    return {
        "uuid": registration.id,
        "name": registration.name,
        "display_name": registration.body.get("display_name") or registration.name,
        "owner": registration.owner,
    }


def _document(registration: Registration) -> dict[str, Any]:
    metadata = registration.body.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return {
        **_summary(registration),
        "multi_user": bool(registration.body.get("multi_user")),
        "public": bool(registration.body.get("public")),
        "description": metadata.get("description"),
        "hostname": metadata.get("hostname"),
        "local_user": metadata.get("local_user"),
        "ip_address": metadata.get("ip_address"),
        "endpoint_version": metadata.get("endpoint_version"),
        "sdk_version": metadata.get("sdk_version"),
        "python_version": metadata.get("python_version"),
        "subscription_uuid": registration.body.get("subscription_uuid"),
        "endpoint_config": metadata.get("endpoint_config"),
        "user_config_template": metadata.get("user_config_template"),
        "user_config_schema": metadata.get("user_config_schema"),
    }


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
