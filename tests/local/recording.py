"""Notes which methods of a client were called and answered, and how the answers compare with the SDK's own
examples of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
import yaml
from globus_sdk.testing import RegisteredResponse, get_response_set

TABLE = Path(__file__).resolve().parents[2] / "docs" / "client-calls.yaml"


def claimed(package: str) -> dict[str, list[str]]:
    """What the documentation says of a package's clients."""
    found: dict[str, list[str]] = yaml.safe_load(TABLE.read_text("utf-8"))[package]
    return found


class Made:
    """The calls of one class that were answered, and what their answers lack."""

    def __init__(self, service: str) -> None:
        self.calls: set[str] = set()
        self.lacking: dict[str, set[str]] = {}
        self._service = service

    def note(self, name: str, answer: Any) -> None:
        self.calls.add(name)
        if isinstance(answer, globus_sdk.GlobusHTTPResponse) and isinstance(answer.data, dict):
            # The last answer counts: a task that is asked for again and again has no result at first.
            self.lacking.pop(name, None)
            if lacking := lacks(answer.data, examples(self._service, name)):
                self.lacking[name] = lacking


def examples(service: str, name: str) -> list[dict[str, Any]]:
    """The SDK's own examples of a method's successful answer."""
    try:
        responses = get_response_set(f"{service}.{name}")
    except (ValueError, LookupError, ImportError):
        return []
    found = []
    for case in responses.cases():
        kept = responses.lookup(case)  # one response, or a list of pages
        found += [kept] if isinstance(kept, RegisteredResponse) else kept.responses
    return [
        response.json
        for response in found
        if isinstance(response.json, dict) and (response.status or 200) < 400
    ]


def lacks(answer: dict[str, Any], shown: list[dict[str, Any]]) -> set[str]:
    """The keys that every example has and the answer has not; those of a list's items as LIST[].KEY."""
    if not shown:
        return set()
    missing = set.intersection(*(set(example) for example in shown)) - set(answer)
    for name, value in answer.items():
        items = [
            item
            for example in shown
            if isinstance(example.get(name), list)
            for item in example[name]
            if isinstance(item, dict)
        ]
        if items and isinstance(value, list) and value and isinstance(value[0], dict):
            common = set.intersection(*(set(item) for item in items))
            missing |= {f"{name}[].{key}" for key in common - set(value[0])}
    return missing


@contextmanager
def recording(client: type, service: str) -> Iterator[Made]:
    """Note every public method of ``client`` that returns, as long as this lasts."""
    made = Made(service)

    def noting(name: str, method: Any) -> Any:
        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            answer = method(*arguments, **named)
            made.note(name, answer)
            return answer

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, method in inspect.getmembers(client, inspect.isfunction):
            if not name.startswith("_") and name in _named(client):
                patch.setattr(client, name, noting(name, method))
        yield made


def _named(client: type) -> set[str]:
    """What the class says beside what every client can."""
    # oauth2_token is what the other methods of the Auth clients call.
    return set(dir(client)) - set(dir(globus_sdk.BaseClient)) - {"oauth2_token"}
