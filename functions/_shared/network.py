"""Fetching from the network on behalf of a spec: public hosts only, unless the site names a host itself."""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, Any

from .grammars import https_host
from .results import StepFailed, shorten
from .spec_words import without_secrets

TIMEOUT_S = 60
MAX_REDIRECTS = 10
# Python calls these global: IPv4-compatible and site-local addresses, and a facility's own NAT64.
INNER_NETWORKS = tuple(ipaddress.IPv6Network(n) for n in ("::/96", "fec0::/10", "64:ff9b:1::/48"))
NAT64_NETWORK = ipaddress.IPv6Network("64:ff9b::/96")


class _PublicConnection(http.client.HTTPSConnection):
    """Looks at the address it reached before it asks anything: a name may mean another one by then."""

    def connect(self) -> None:
        super().connect()
        # through a tunnel the address is that of the site's own proxy
        if getattr(self, "_tunnel_host", None):
            return
        address = str(self.sock.getpeername()[0])
        if not _is_public(address):
            self.close()
            raise OSError(f"{self.host} leads to {address}, which is not a public address")


class _PublicHTTPS(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self.context = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PublicConnection, req, context=self.context)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are followed by hand, so that each new host is checked too."""

    def redirect_request(self, *_: Any) -> None:
        return None


def check_host(url: str, site: dict[str, Any], code: str, what: str) -> bool:
    """Raise unless ``url`` is https to a public host, or to a host that the site's profile names (then True).

    A build endpoint stands inside a facility's network; without this rule a spec could read what only that
    network may see (cloud metadata services, internal web servers).
    """
    host = https_host(url)
    if not host:
        raise StepFailed(
            code,
            f"{what} has an address that is not plain http(s): {shorten(without_secrets(url), 120)}.",
        )
    parts = urllib.parse.urlsplit(url)
    netloc = parts.netloc
    allowed = {*site["payload_hosts"], *site["registry_mirrors"].values()}
    if netloc in allowed or host in allowed:
        return True
    if parts.scheme != "https":
        raise StepFailed(
            code, f"{what} must be fetched by https, not {shorten(without_secrets(url), 120)}."
        )
    try:
        addresses = _addresses(host, parts.port or 443)
    except (OSError, UnicodeError):
        if site["proxies"] or os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY"):
            return (
                False  # only the proxy can resolve names here, and it applies the site's own rules
            )
        raise StepFailed(
            "network",
            f"The host {host} of {what[0].lower() + what[1:]} cannot be resolved from the endpoint.",
            "Check the address; if the site needs a proxy, its administrator sets 'proxies' in the site profile.",
        ) from None
    for address in addresses:
        if not _is_public(str(address)):
            raise _not_public(host, code, what)
    return False


def pinned_host(url: str, site: dict[str, Any], code: str, what: str) -> str:
    """``host:port:addresses`` of a ``url`` that :func:`check_host` accepts, as curl takes it.

    A program that is given it does not ask the name server again, which might then answer with an inner
    address. Empty where only a proxy knows the name, or where the url has an address instead of a name.
    """
    listed = check_host(url, site, code, what)
    host = https_host(url)
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = sorted(_addresses(host, port)) if host and ":" not in host else []
    except (OSError, UnicodeError):
        return ""
    for address in found:
        if not listed and not _is_public(address):
            raise _not_public(str(host), code, what)
    shown = ",".join(f"[{address}]" if ":" in address else address for address in found)
    return f"{host}:{port}:{shown}" if found else ""


def _not_public(host: str, code: str, what: str) -> StepFailed:
    return StepFailed(
        code,
        f"{what} points to {host}, which is not a public address.",
        "The endpoint's administrator can allow a host by 'payload_hosts' in the site profile.",
    )


def _addresses(host: str, port: int) -> set[str]:
    return {str(info[4][0]) for info in socket.getaddrinfo(host, port)}


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if any(found in network for network in INNER_NETWORKS):
            return False
        # a gateway would take the packet to the IPv4 address that stands inside
        low = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        inside = found.sixtofour or (low if found in NAT64_NETWORK else None)
        if inside is not None and not _is_public(str(inside)):
            return False
    return found.is_global and not found.is_multicast


def open_url(
    url: str,
    site: dict[str, Any],
    code: str,
    what: str,
    headers: dict[str, str] | None = None,
    method: str = "GET",
) -> IO[bytes]:
    """Open ``url`` for reading; ``what`` begins the sentences ("The payload").

    Raises :class:`StepFailed` with ``code`` for refused addresses, ``network`` when nothing answers, and
    lets :class:`urllib.error.HTTPError` pass for 4xx and 5xx answers.
    """
    try:
        context = ssl.create_default_context(cafile=site["ca_bundle"])
    except (OSError, ssl.SSLError):
        raise StepFailed(
            "site_invalid",
            f"The site profile's 'ca_bundle' {site['ca_bundle']} is not a readable file of certificates.",
            "Ask the endpoint's administrator to correct it.",
        ) from None
    origin = _origin(url)
    for _ in range(MAX_REDIRECTS):
        listed = check_host(url, site, code, what)
        secure = urllib.request.HTTPSHandler(context=context) if listed else _PublicHTTPS(context)
        handlers: list[urllib.request.BaseHandler] = [secure, _NoRedirects()]
        if site["proxies"]:
            schemes = {key: value for key, value in site["proxies"].items() if key != "no"}
            handlers.append(urllib.request.ProxyHandler(schemes))
        opener = urllib.request.build_opener(*handlers)
        request = urllib.request.Request(url, headers=headers or {}, method=method)  # noqa: S310 - check_host admits http(s) only
        try:
            answer: IO[bytes] = opener.open(request, timeout=TIMEOUT_S)
            return answer
        except urllib.error.HTTPError as error:
            target = error.headers.get("Location")
            if error.code not in (301, 302, 303, 307, 308) or not target:
                raise
            url = urllib.parse.urljoin(url, target)
            error.close()
            if _origin(url) != origin:
                # a token for one server is not for the next
                headers = {k: v for k, v in (headers or {}).items() if k != "Authorization"}
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            reason = getattr(error, "reason", error)
            raise StepFailed(
                "network",
                f"{what} cannot be fetched from {https_host(url)}: {reason}.",
                "Check the address and that the endpoint's control nodes reach the network.",
            ) from None
    raise StepFailed(code, f"{what} was redirected more than {MAX_REDIRECTS} times.")


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc
