"""What the services say, turned into one sentence; and how often they may be asked.

Every call of a ``globus_sdk`` client in this package happens inside ``explained``, so that no
caller has to know the SDK's exceptions. The clients' own retries have run by then: five attempts
with growing pauses on 429, 5xx and dropped connections.
"""

from __future__ import annotations

import collections
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cib_flows.errors import CibFlowsError, NotFoundError, ServiceError, UsageError

if TYPE_CHECKING:
    import globus_sdk
    from globus_sdk.transport import RetryCheckResult, RetryConfig, RetryContext

__all__ = ["Pacer", "RefusedError", "explained", "is_expired", "is_transient", "retries"]

TRANSIENT = (429, 500, 502, 503, 504)
UNAUTHORIZED = 401


class RefusedError(ServiceError):
    """A service answered with an error. ``status`` is the HTTP status, ``code`` the service's own
    name for it.
    """

    def __init__(
        self, message: str, status: int, code: str | None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code


def is_transient(failure: CibFlowsError) -> bool:
    """Whether asking again later may succeed: nothing answered, or the service was busy or in trouble."""
    if isinstance(failure, RefusedError):
        return failure.status in TRANSIENT
    return isinstance(failure, ServiceError)


def is_expired(failure: CibFlowsError) -> bool:
    """Whether the login was refused; nothing was done then, and another call gets a new token."""
    return isinstance(failure, RefusedError) and failure.status == UNAUTHORIZED


def retries() -> RetryConfig:
    """How a client tries again: as the SDK's own do, but a token that has expired is renewed
    whenever that shows. The SDK looks once in a call, at the first answer, and misses a token that
    expires while the service is busy.
    """
    from globus_sdk.transport import RetryConfig

    config = RetryConfig()
    config.checks.register_check(_renew_login)
    return config


def _renew_login(context: RetryContext) -> RetryCheckResult:
    from globus_sdk.transport import RetryCheckResult

    authorizer = context.caller_info.authorizer
    refused = context.response is not None and context.response.status_code == UNAUTHORIZED
    if authorizer is None or not refused or not authorizer.handle_missing_authorization():
        return RetryCheckResult.no_decision
    context.backoff = 0.0
    return RetryCheckResult.do_retry


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Raises this package's errors in place of the SDK's. ``doing`` completes "could not …", such
    as "start the run".

    Raises ``NotFoundError`` for a 404, ``RefusedError`` for any other answer, ``ServiceError`` when
    nothing answered and ``UsageError`` when a login is needed that cannot be had here.
    """
    import globus_sdk

    try:
        yield
    except CibFlowsError:
        raise
    except globus_sdk.GlobusAPIError as refusal:
        raise _refusal(doing, refusal) from refusal
    except globus_sdk.NetworkError as failure:
        raise ServiceError(
            f"Could not {doing}: {_who_did_not_answer(failure.underlying_exception)}.",
            hint=(
                "Check the network; for a local home, 'cib-flows local status' says whether it "
                "runs."
            ),
        ) from failure
    except globus_sdk.GlobusError as failure:
        raise UsageError(
            f"Could not {doing}: the login to Globus did not work ({_plain(failure)}).",
            hint=(
                "Run the command in a terminal to log in, or set CIB_FLOWS_CLIENT_ID and "
                "CIB_FLOWS_CLIENT_SECRET."
            ),
        ) from failure


def _refusal(doing: str, refusal: globus_sdk.GlobusAPIError) -> CibFlowsError:
    status, code = refusal.http_status, refusal.code
    said = _details(refusal) or _plain(refusal.message or refusal.text)
    if status == 404:
        return NotFoundError(f"Could not {doing}: {said or 'Globus does not know it.'}")
    hint = None
    if status == 401:
        hint = (
            "The login has expired, or was made for another Globus; for a local home, "
            "'cib-flows local status' says whether port 5000 belongs to another one."
        )
    elif status == 403:
        hint = "The identity in use lacks the permission or the consent for this."
    elif status == 429:
        hint = "The service limits how often it may be asked; wait a minute."
    elif status >= 500:
        hint = "This is trouble inside the service; try again later."
    return RefusedError(f"Could not {doing}: {said} (HTTP {status}).", status, code, hint)


def _details(refusal: globus_sdk.GlobusAPIError) -> str:
    """The list of complaints that Globus Flows gives for a bad definition or input, as text."""
    error: Any = (refusal.raw_json or {}).get("error")
    detail = error.get("detail") if isinstance(error, dict) else None
    if not isinstance(detail, list):
        return ""
    said = []
    for item in detail[:5]:
        if isinstance(item, dict):
            place = ".".join(str(part) for part in item.get("loc") or [])
            said.append(f"{place}: {item.get('msg')}" if place else str(item.get("msg")))
    return "; ".join(said)


def _who_did_not_answer(failure: Exception) -> str:
    """The address and the system's own reason, out of an exception that wraps several others."""
    url = getattr(getattr(failure, "request", None), "url", None)
    who = urlsplit(url).netloc if isinstance(url, str) else "Globus"
    reason = re.search(r"\[Errno -?\d+\] ([^'\"()]+)", str(failure))
    why = reason.group(1).strip() if reason else _plain(failure)[:120] or type(failure).__name__
    return f"{who} did not answer ({why})"


def _plain(said: object) -> str:
    """The first line of a message, without its final full stop."""
    lines = str(said or "").strip().splitlines()
    return lines[0].strip().rstrip(".")[:500] if lines else ""


class Pacer:
    """Keeps calls under a service's limit by waiting before the one that would exceed it.

    Globus Compute allows 20 requests in 10 seconds per user; the default stays below, for other
    programs' sake.
    """

    def __init__(
        self,
        limit: int = 16,
        window_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._clock = clock
        self._sleep = sleep
        self._calls: collections.deque[float] = collections.deque()

    def wait(self) -> None:
        """Returns as soon as one more call is allowed, and counts it."""
        now = self._clock()
        while self._calls and now - self._calls[0] >= self._window_s:
            self._calls.popleft()
        if len(self._calls) >= self._limit:
            (self._sleep or time.sleep)(self._window_s - (now - self._calls[0]))
            now = self._clock()
            self._calls.popleft()
        self._calls.append(now)
