"""Files of collections by HTTPS, as a collection of a data centre gives them: ``GET <https_server>/path``.

On this machine the protocol is plain HTTP on loopback, and each collection's server is a folder of the one
address. A token needs the collection's own scope, ``https://auth.globus.org/scopes/<id>/https``.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from cib_flows.local.transfer.errors import TransferError
from cib_flows.local.transfer.service import TransferService

__all__ = ["https_routes", "https_server"]

PREFIX = "https"


def https_server(request: Request, collection_id: str) -> str:
    """Where a collection answers, as ``https_server`` of its document says."""
    return f"{request.base_url}{PREFIX}/{collection_id}"


def https_routes(service: TransferService) -> list[Route]:
    """The route of every collection's files; ranges are answered, so that a client can go on."""

    async def read(request: Request) -> Response:
        collection_id = request.path_params["collection_id"]
        try:
            collection = service.collections.get(collection_id)
            scopes = request.state.scopes
            wanted = f"https://auth.globus.org/scopes/{collection.id}/https"
            if scopes is not None and wanted not in scopes:
                return _refused(403, "PermissionDenied", f"The token lacks the scope {wanted}.")
            path = collection.locate("/" + request.path_params["path"])
        except TransferError as refusal:
            return _refused(refusal.status, refusal.code, refusal.message)
        if not path.is_file():
            return _refused(404, "NotFound", "There is no such file.")
        return FileResponse(path, media_type="application/octet-stream")

    return [Route(f"/{PREFIX}/{{collection_id}}/{{path:path}}", read, methods=["GET"])]


def _refused(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status)
