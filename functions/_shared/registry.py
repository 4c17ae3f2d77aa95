"""Asking an OCI registry which digest a tag means today (OCI distribution specification 1.1)."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.parse
from typing import IO, Any

from .grammars import split_image_reference
from .network import open_url
from .results import StepFailed, shorten

MANIFEST_TYPES = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
MAX_MANIFEST_BYTES = 4 * 1024 * 1024


def mirrored(reference: str, site: dict[str, Any]) -> tuple[str, str, str | None, str | None]:
    """A checked reference split into host, repository, tag and digest, with the site's mirror put in place."""
    parts = split_image_reference(reference)
    if parts is None:
        raise StepFailed("base_refused", f"{shorten(reference, 80)} is not an image reference.")
    host, repository, tag, digest = parts
    return site["registry_mirrors"].get(host, host), repository, tag, digest


def resolve(reference: str, site: dict[str, Any], bootstrap: str) -> tuple[str, str]:
    """``(reference pinned to its digest, digest)`` for a docker or oras base.

    Raises :class:`StepFailed` with ``base_not_found``, ``registry_denied``, ``registry_rate_limit``,
    ``base_refused`` or ``network``.
    """
    host, repository, tag, digest = mirrored(reference, site)
    shown = f"{bootstrap}://{reference}"
    wanted = digest or tag or "latest"
    api = "registry-1.docker.io" if host == "docker.io" else host
    scheme = "http" if host in site["registry_mirrors"].values() and _is_local(host) else "https"
    if host in site["payload_hosts"] and _is_local(host):
        scheme = "http"
    may_log_in = credentials_are_for(host, site)
    url = f"{scheme}://{api}/v2/{repository}/manifests/{wanted}"
    headers = {"Accept": MANIFEST_TYPES}
    try:
        with ask_registry(url, site, headers, repository, may_log_in) as answer:
            found = answer.headers.get("Docker-Content-Digest")  # type: ignore[attr-defined]
            if not found or not re.fullmatch(r"sha256:[0-9a-f]{64}", found):
                found = "sha256:" + hashlib.sha256(answer.read(MAX_MANIFEST_BYTES)).hexdigest()
    except urllib.error.HTTPError as error:
        error.close()
        raise _refused(error.code, shown, host, repository, wanted) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StepFailed(
            "network", f"The registry {host} did not answer properly for {shown}: {error}."
        ) from None
    if digest and found != digest:
        raise StepFailed(
            "base_refused",
            f"The registry {host} answers with {found} when asked for the base image {shown}.",
            "The registry or its mirror is not to be trusted with this image.",
        )
    return f"{host}/{repository}@{found}", found


def credentials_are_for(host: str, site: dict[str, Any]) -> bool:
    """Whether the site's registry password may be shown to ``host``: a spec can name any registry at all."""
    return host in site["registry_login_hosts"] or host in site["registry_mirrors"].values()


def ask_registry(
    url: str,
    site: dict[str, Any],
    headers: dict[str, str],
    repository: str,
    may_log_in: bool,
    code: str = "base_refused",
    what: str = "The base image",
) -> IO[bytes]:
    """As :func:`open_url`, after fetching the token for ``repository`` that the registry may ask for."""
    try:
        return open_url(url, site, code, what, headers)
    except urllib.error.HTTPError as error:
        challenge = error.headers.get("WWW-Authenticate", "")
        if error.code != 401 or not challenge.lower().startswith("bearer "):
            raise
        error.close()
        asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = urllib.parse.urlencode(
            {"service": asked.get("service", ""), "scope": f"repository:{repository}:pull"}
        )
        token_headers = {}
        user = os.environ.get("APPTAINER_DOCKER_USERNAME")
        secret = os.environ.get("APPTAINER_DOCKER_PASSWORD")
        if user and secret and may_log_in:
            pair = base64.b64encode(f"{user}:{secret}".encode()).decode()
            token_headers["Authorization"] = f"Basic {pair}"
        realm = asked.get("realm", "")
        address = f"{realm}{'&' if '?' in realm else '?'}{query}"
        with open_url(address, site, code, f"{what}'s registry", token_headers) as answer:
            given = json.loads(answer.read(MAX_MANIFEST_BYTES))
        fields = given if isinstance(given, dict) else {}
        token = str(fields.get("token") or fields.get("access_token") or "")
        if not re.fullmatch(r"[\x21-\x7e]*", token):
            raise ValueError("its token is not one word") from None
        return open_url(url, site, code, what, {**headers, "Authorization": f"Bearer {token}"})


def _is_local(host: str) -> bool:
    """Apptainer itself speaks plain http to loopback names, so the question goes the same way."""
    name = host.rsplit(":", 1)[0]
    return name in ("localhost", "127.0.0.1") or name.endswith(".localhost")


def _refused(status: int, shown: str, host: str, repository: str, wanted: str) -> StepFailed:
    if status == 404:
        return StepFailed(
            "base_not_found",
            f"The base image {shown} does not exist: {host} has no '{wanted}' of {repository}.",
            "Check the image's name and tag in 'base.image'.",
        )
    if status in (401, 403):
        return StepFailed(
            "registry_denied",
            f"The registry {host} does not let the endpoint read the base image {shown}: it does not "
            "exist, or it is private.",
            "Check the image's name, or ask the endpoint's administrator to set the registry's credentials.",
        )
    if status == 429:
        return StepFailed(
            "registry_rate_limit",
            f"The registry {host} answers that its pull limit is used up.",
            "Try again later, or ask the endpoint's administrator for a mirror or credentials.",
        )
    return StepFailed(
        "network",
        f"The registry {host} answered {status} when asked for the base image {shown}.",
        "Try again later.",
    )
