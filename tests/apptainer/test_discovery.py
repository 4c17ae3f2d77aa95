"""From a build to a search index and back, on the command line of a running home."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import pytest
from globus_sdk import SearchClient

from cib_flows.profiles import connect

from .conftest import PLAIN, LocalGlobus


@pytest.fixture
def index(globus: LocalGlobus) -> Iterator[str]:
    with mock.patch.dict(os.environ):
        client = SearchClient(app=connect("local", str(globus.home)).app)
        yield str(client.create_index("images", "what was built")["id"])


def test_a_built_container_is_published_found_and_withdrawn(
    globus: LocalGlobus, index: str
) -> None:
    made = globus.built({**PLAIN, "name": "findable", "description": "For the spectrometer"})
    publish = ("containers", "publish-search", index, "--visible-to", "public", "--json")
    answer = globus.cli(*publish, "findable")
    assert answer.code == 0, answer.output
    assert answer.document["published"] == 1
    search = ("containers", "search", "--index", index)
    (found,) = globus.cli(*search, "spectrometer", "--json").document["containers"]
    for key in ("container_id", "path", "sha256", "name"):
        assert found[key] == made[key]
    assert found["base"] == "python:3.11-slim"
    line = globus.cli(*search, "findable python").output
    assert line.startswith(made["container_id"])
    assert globus.cli("containers", "remove", "findable", "--force").code == 0
    # everything that is left is published, and what is gone leaves the index
    again = globus.cli(*publish)
    assert again.document["withdrawn"] == 1, again.output
    none = globus.cli(*search, "spectrometer")
    assert (none.code, none.output, none.errors) == (0, "", "None fits.\n")
    gone = globus.cli("containers", "withdraw-search", index, made["container_id"], "--json")
    assert gone.code == 0, gone.output
    wrong = globus.cli(*search[:3], "00000000-0000-4000-8000-000000000000", "x", "--json")
    assert wrong.code == 1
    assert wrong.document["error"]["message"].startswith("Could not search the index")
