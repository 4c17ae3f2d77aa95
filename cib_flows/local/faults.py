"""Makes the local Globus as unruly as it was asked to be, for those who test their clients.

A specification is a list of ``KIND[:VALUE][@PATH]=RATE``, separated by commas, such as
``429:2=0.1,drop@/runs=0.05,seed=7``; PATH limits a fault to addresses that begin so:

=====================  =======================================================================
``latency:MS``         the answer comes later (200 ms)
``429:SECONDS``        refused as too many requests, with Retry-After (1 s)
``500 502 503 504``    the service is in trouble, and nothing was done
``drop``               the connection is closed, and nothing was done
``lost``               the connection is closed after the request was carried out
``expired``            the token, once it was used, has expired: a new one is needed
``lost-result``        a Compute task's result never arrives: the task fails
``duplicate-result``   a Compute task's result arrives twice
``kill-before:N``      the server is killed when it is about to keep a change, from the N-th on (1)
``kill-after:N``       the server is killed when it has kept a change, from the N-th on (1)
=====================  =======================================================================
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cib_flows.errors import UsageError
from cib_flows.local.refusals import refusal

__all__ = ["Faults", "Unruly", "parse_faults"]

_STATUSES = {
    "429": ("TOO_MANY_REQUESTS", "Too many requests; try again later."),
    "500": ("INTERNAL_ERROR", "The service met an error."),
    "502": ("BAD_GATEWAY", "The service behind the gateway did not answer."),
    "503": ("SERVICE_UNAVAILABLE", "The service is not available."),
    "504": ("GATEWAY_TIMEOUT", "The service behind the gateway took too long."),
}
_DEFAULTS = {"latency": 200.0, "429": 1.0, "kill-before": 1.0, "kill-after": 1.0}
_OF_RESULTS = ("lost-result", "duplicate-result")
_OF_CHANGES = ("kill-before", "kill-after")
_OF_REQUESTS = ("latency", *_STATUSES, "drop", "lost", "expired")
_KINDS = (*_OF_REQUESTS, *_OF_RESULTS, *_OF_CHANGES)
_RULE = re.compile(r"([a-z0-9-]+)(?::([0-9.]+))?(?:@(/[^=,]*))?=([0-9.]+)")


@dataclass(frozen=True)
class Fault:
    kind: str
    value: float
    path: str
    rate: float


def parse_faults(text: str) -> tuple[list[Fault], int]:
    """The faults of a specification, and the seed of its dice. Raises :class:`UsageError`."""
    faults, seed = [], 0
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word.startswith("seed="):
            if not word[5:].isdigit():
                raise UsageError(f"--faults: the seed in {word!r} must be a whole number.")
            seed = int(word[5:])
            continue
        match = _RULE.fullmatch(word)
        if match is None or match[1] not in _KINDS:
            raise UsageError(
                f"--faults: {word!r} is not KIND[:VALUE][@PATH]=RATE with a KIND of {', '.join(_KINDS)}."
            )
        kind, value, path, rate = match.groups()
        try:
            number, share = float(value or _DEFAULTS.get(kind, 0.0)), float(rate)
        except ValueError:
            raise UsageError(f"--faults: {word!r} holds a number that is none.") from None
        if share > 1:
            raise UsageError(f"--faults: the rate in {word!r} must lie between 0 and 1.")
        if path and kind not in _OF_REQUESTS:
            raise UsageError(f"--faults: {kind} has no path; it befalls no request.")
        faults.append(Fault(kind, number, path or "/", share))
    return faults, seed


class Faults:
    """The dice. The same specification and the same requests give the same faults."""

    def __init__(self, text: str) -> None:
        self._faults, seed = parse_faults(text)
        self._dice = random.Random(seed)
        self._used: set[bytes] = set()
        self._expired: set[bytes] = set()
        self._changes = 0

    def of_request(self, path: str, token: bytes = b"") -> Sequence[Fault]:
        """What befalls a request: delays, and at most one fault that decides how it ends."""
        struck = [fault for fault in self._faults if self._strikes(fault, path, token)]
        ends = [fault for fault in struck if fault.kind != "latency"]
        if not ends:
            # a token that has not got anybody anywhere yet is new, and no service calls a new one expired
            self._used.add(token)
        return [fault for fault in struck if fault.kind == "latency"] + ends[:1]

    def of_result(self) -> str | None:
        """What befalls a task's result: ``lost-result``, ``duplicate-result`` or nothing."""
        for fault in self._faults:
            if fault.kind in _OF_RESULTS and self._dice.random() < fault.rate:
                return fault.kind
        return None

    def before_change(self) -> None:
        """Called when a change is about to be kept; may not return."""
        self._changes += 1
        self._kill("kill-before")

    def after_change(self) -> None:
        """Called when a change was kept; may not return."""
        self._kill("kill-after")

    def _kill(self, kind: str) -> None:
        for fault in self._faults:
            is_due = fault.kind == kind and self._changes >= fault.value
            if is_due and self._dice.random() < fault.rate:
                os.kill(os.getpid(), signal.SIGKILL)

    def _strikes(self, fault: Fault, path: str, token: bytes) -> bool:
        if fault.kind not in _OF_REQUESTS or not path.startswith(fault.path):
            return False
        if fault.kind != "expired":
            return self._dice.random() < fault.rate
        # No token expires before it was used, or comes back once it has.
        if token and token in self._used and self._dice.random() < fault.rate:
            self._expired.add(token)
        return token in self._expired


class Unruly:
    """Stands before an application and does to its requests what the faults say."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for fault in self._faults.of_request(scope["path"], _token(scope)):
            if fault.kind == "latency":
                await asyncio.sleep(fault.value / 1000)
            elif fault.kind == "drop":
                _hang_up(send)
                return
            elif fault.kind == "lost":
                await self._app(scope, receive, _nowhere)
                _hang_up(send)
                return
            else:
                await _read_all(receive)
                await _refusal(fault, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _token(scope: Scope) -> bytes:
    """What stands for a request's bearer token; empty where it holds none."""
    for name, value in scope["headers"]:
        if name == b"authorization" and value.lower().startswith(b"bearer "):
            return hashlib.sha256(value).digest()
    return b""


def _refusal(fault: Fault, path: str) -> Response:
    if fault.kind == "expired":
        return refusal(path, 401, "AUTHENTICATION_ERROR", "The token has expired.")
    code, message = _STATUSES[fault.kind]
    headers = {"Retry-After": f"{fault.value:.0f}"} if fault.kind == "429" else {}
    return refusal(path, int(fault.kind), code, message, headers)


async def _read_all(receive: Receive) -> None:
    """A body that is left unread would be taken for the next request of the connection."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass


async def _nowhere(message: Message) -> None:
    pass


def _hang_up(send: Any) -> None:
    """Close the connection without an answer. ASGI has no word for that: the server's own object
    behind ``send`` knows the connection."""
    send.__self__.transport.abort()
