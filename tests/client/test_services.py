"""What the SDK raises becomes this package's errors, and services are not asked too often."""

from __future__ import annotations

import uuid

import pytest
import requests
import responses

from cib_flows.errors import NotFoundError, ServiceError
from cib_flows.profiles import Globus
from cib_flows.services import Pacer, RefusedError, explained

RUN = str(uuid.UUID(int=3))
URL = f"https://flows.automate.globus.org/runs/{RUN}"


def ask(globus: Globus) -> None:
    with explained("look up the run"):
        globus.flows.get_run(RUN)


def test_a_service_that_is_out_of_reach_is_one_sentence_after_five_retries(
    globus: Globus, cloud: responses.RequestsMock, pauses: list[float]
) -> None:
    cloud.get(URL, body=requests.ConnectionError("Pool(x): ('[Errno 113] No route to host')"))
    with pytest.raises(ServiceError) as failed:
        ask(globus)
    assert failed.value.message in (
        "Could not look up the run: Globus did not answer (No route to host).",
        "Could not look up the run: flows.automate.globus.org did not answer (No route to host).",
    )
    assert len(pauses) == 5


def test_a_service_that_recovers_is_not_noticed(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    cloud.get(URL, body=requests.ConnectionError("reset"))
    cloud.get(URL, status=502)
    cloud.get(URL, status=429, headers={"Retry-After": "1"})
    cloud.get(URL, json={"run_id": RUN})
    ask(globus)


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFoundError), (403, RefusedError), (400, RefusedError)]
)
def test_a_refusal_carries_what_the_service_said(
    globus: Globus, cloud: responses.RequestsMock, status: int, kind: type[Exception]
) -> None:
    cloud.get(
        URL,
        status=status,
        json={
            "error": {"code": "X", "detail": "You lack the role.", "message": "You lack the role."},
            "debug_id": RUN,
        },
    )
    with pytest.raises(kind, match="Could not look up the run: You lack the role"):
        ask(globus)


def test_credentials_that_are_wrong_are_one_sentence(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    cloud.replace(
        "POST",
        "https://auth.globus.org/v2/oauth2/token",
        status=401,
        json={"errors": [{"code": "INVALID_CLIENT", "detail": "unknown client"}]},
    )
    with pytest.raises(RefusedError, match=r"Could not look up the run: .*\(HTTP 401\)"):
        ask(globus)


def test_the_pacer_lets_a_burst_through_and_then_waits_for_the_window() -> None:
    now = [0.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pacer = Pacer(limit=3, window_s=10.0, clock=lambda: now[0], sleep=sleep)
    for _ in range(3):
        pacer.wait()
    now[0] = 4.0
    pacer.wait()
    assert slept == [6.0]
    pacer.wait()
    pacer.wait()
    assert slept == [6.0]
    pacer.wait()
    assert slept == [6.0, 10.0]
