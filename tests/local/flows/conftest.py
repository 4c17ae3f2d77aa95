from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from flow_testing import COMPUTE, TRANSFER, FlowsServer, ScriptedProvider, serving


@pytest.fixture(scope="session")
def _providers() -> dict[str, ScriptedProvider]:
    return {COMPUTE: ScriptedProvider(), TRANSFER: ScriptedProvider()}


@pytest.fixture(scope="session")
def _running(_providers: dict[str, ScriptedProvider]) -> Iterator[FlowsServer]:
    with serving(":memory:", _providers) as running:
        yield running


@pytest.fixture
def compute(_providers: dict[str, ScriptedProvider]) -> ScriptedProvider:
    _providers[COMPUTE].reset()
    return _providers[COMPUTE]


@pytest.fixture
def transfer(_providers: dict[str, ScriptedProvider]) -> ScriptedProvider:
    _providers[TRANSFER].reset()
    return _providers[TRANSFER]


@pytest.fixture
def server(
    _running: FlowsServer,
    compute: ScriptedProvider,
    transfer: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> FlowsServer:
    """One service for all tests, with providers that remember nothing of the test before."""
    monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_FLOWS", _running.url)
    return _running


@pytest.fixture
def me() -> str:
    """A name that no other test uses, so that lists hold only what this test made."""
    return f"user-{uuid.uuid4()}"
