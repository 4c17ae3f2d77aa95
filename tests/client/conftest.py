"""A globus.org that answers from fixtures: the unmodified SDK clients, every request
intercepted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import globus_sdk.globus_app  # noqa: F401 - its defaults are of the environment that first imports it
import pytest
import responses
from requests import PreparedRequest

from cib_flows.profiles import Globus, connect

BUILD_ENDPOINT = "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b01"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Globus of the person who runs the tests, and none of their files."""
    for name in list(os.environ):
        if name.startswith(("GLOBUS_", "CIB_FLOWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def grant(request: PreparedRequest) -> tuple[int, dict[str, str], str]:
    """Globus Auth: one token for each resource server whose scope was asked for."""
    body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
    scopes = parse_qs(body)["scope"][0].split()
    tokens = [
        {
            "access_token": f"token-{number}",
            "scope": scope,
            "resource_server": resource_server(scope),
            "expires_in": 172800,
            "token_type": "Bearer",
        }
        for number, scope in enumerate(scopes)
    ]
    merged: dict[str, dict[str, object]] = {}
    for token in tokens:
        known = merged.setdefault(str(token["resource_server"]), token)
        if known is not token:
            known["scope"] = f"{known['scope']} {token['scope']}"
    first, *others = merged.values()
    return 200, {}, json.dumps({**first, "other_tokens": others})


def resource_server(scope: str) -> str:
    if "eec9b274-0c81-4334-bdc2-54e90e689b9a" in scope:
        return "flows.globus.org"
    if "facd7ccc-c5f4-42aa-916b-a0e270e2c2a9" in scope:
        return "funcx_service"
    if scope.startswith("urn:"):
        return scope.split(":")[-2]
    return scope.partition("[")[0].split("/")[-2]


@pytest.fixture
def cloud() -> Iterator[responses.RequestsMock]:
    """What answers in place of globus.org; anything not declared is refused as unreachable."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add_callback("POST", "https://auth.globus.org/v2/oauth2/token", grant)
        yield mock


@pytest.fixture
def globus(cloud: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch) -> Globus:
    """The profile ``globus``, with a service client from the environment."""
    monkeypatch.setenv("CIB_FLOWS_CLIENT_ID", "7d0c6bf3-6ff8-4b7d-9f0b-5b7c5d5f3c11")
    monkeypatch.setenv("CIB_FLOWS_CLIENT_SECRET", "not-a-secret")
    monkeypatch.setenv("CIB_FLOWS_BUILD_ENDPOINT", BUILD_ENDPOINT)
    return connect("globus")


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody sleeps in these tests; the pauses that were asked for are listed."""
    asked: list[float] = []
    monkeypatch.setattr("time.sleep", asked.append)
    return asked
