"""An image from a site to this computer, over HTTPS from the collection that its endpoint's staging is part of."""

from __future__ import annotations

import urllib.error
import uuid
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

import requests
from globus_sdk.scopes import GCSCollectionScopes

from cib_flows.catalogue import LONG_CALL_S, Catalogue
from cib_flows.errors import AlreadyExistsError, CibFlowsError, ServiceError
from cib_flows.functions._shared.downloads import Download
from cib_flows.functions._shared.results import StepFailed
from cib_flows.profiles import Globus
from cib_flows.services import explained

__all__ = ["download_container"]

TIMEOUT_S = 60
NO_LIMIT = 2**62
BLOCK_BYTES = 64 * 1024


class _Answer:
    """An answer as ``Download`` reads it. A connection that breaks is an ``OSError``."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = response.headers

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def read1(self, _: int) -> bytes:
        import urllib3

        try:
            found: bytes = self._response.raw.read(BLOCK_BYTES)
        except urllib3.exceptions.HTTPError as broken:
            raise OSError(str(broken)) from broken
        return found


def download_container(
    reference: str,
    target: Path,
    globus: Globus | None = None,
    build_endpoint: str | None = None,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Writes the image of a container to the file ``target``, once its sha256 has been compared.

    What broke off before goes on where it stopped. Returns ``path, container_id, sha256, bytes`` and
    ``resumed_at``. Raises ``AlreadyExistsError`` when there is such a file, unless ``force`` is given,
    ``NotFoundError`` when there is no such container, and ``ServiceError`` when the collection has no
    HTTPS or the download fails.
    """
    if target.exists() and not force:
        raise AlreadyExistsError(f"{target} exists.", hint="Choose another file, or give --force.")
    catalogue = Catalogue(globus, build_endpoint)
    run_id = str(uuid.uuid4())
    offer = catalogue.ask(
        "offer_container", {"run_id": run_id, "container": reference}, LONG_CALL_S
    )
    try:
        resumed_at = _fetch(catalogue.globus, offer, target)
    finally:
        _withdraw(catalogue, run_id)
    return {
        "ok": True,
        "path": str(target),
        **{key: offer[key] for key in ("container_id", "sha256", "bytes")},
        "resumed_at": resumed_at,
    }


def _withdraw(catalogue: Catalogue, run_id: str) -> None:
    try:
        catalogue.ask("drop_delivery", {"run_id": run_id, "cancel": True})
    except CibFlowsError:
        return  # it is removed within two weeks; the download's own outcome counts


def _fetch(globus: Globus, offer: dict[str, Any], target: Path) -> list[int]:
    sha256 = str(offer["sha256"])
    opener = _opener(globus, str(offer["collection_id"]), f"{offer['folder']}{sha256}.sif")
    fetched = Download(str(target.absolute().parent), sha256, "The image", NO_LIMIT)
    try:
        # each call offers the image at another place, so that its content is all that names it
        path = fetched.fetch(opener, f"sha256:{sha256}")
    except StepFailed as failure:
        raise ServiceError(failure.message, failure.hint or None) from None
    Path(path).replace(target)
    return fetched.resumed_at


def _opener(globus: Globus, collection_id: str, path: str) -> Callable[[dict[str, str]], IO[bytes]]:
    """What opens a file of a collection."""
    with explained("look up the collection"):
        server = globus.transfer.get_endpoint(collection_id).get("https_server")
    if not server:
        raise ServiceError(
            f"The collection {collection_id} gives no files by HTTPS.",
            hint="Its administrator can allow that; meanwhile use 'cib-flows containers push', or "
            "Globus Transfer.",
        )
    scope = GCSCollectionScopes(collection_id).https
    with explained("log in to the collection"):
        globus.app.add_scope_requirements({collection_id: [scope]})
        authorizer = globus.app.get_authorizer(collection_id)
    url = f"{str(server).rstrip('/')}{quote(path)}"

    def opened(headers: dict[str, str]) -> IO[bytes]:
        token = authorizer.get_authorization_header()
        try:
            # 'requests' keeps the token from another host that it may be sent to
            response = requests.get(
                url,
                headers={**headers, "Authorization": str(token), "Accept-Encoding": "identity"},
                stream=True,
                timeout=TIMEOUT_S,
            )
        except requests.RequestException as broken:
            raise OSError(str(broken)) from broken
        if response.status_code >= 400:
            told = Message()
            for key, value in response.headers.items():
                told[key] = value
            response.close()
            raise urllib.error.HTTPError(url, response.status_code, "", told, None)
        return cast("IO[bytes]", _Answer(response))

    return opened
