"""A collection that asks for a consent: the run rests until its owner gives it, and goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
from globus_sdk.gare import to_gare

from cib_flows.errors import UsageError
from cib_flows.local import control
from cib_flows.local.transfer.collections import Collection, Collections

from .conftest import LocalGlobus, until


def definition(source: str, destination: str) -> dict[str, Any]:
    return {
        "StartAt": "Copy",
        "States": {
            "Copy": {
                "Type": "Action",
                "ActionUrl": "https://transfer.actions.globus.org/transfer",
                "Parameters": {
                    "source_endpoint": source,
                    "destination_endpoint": destination,
                    "DATA": [{"source_path": "/a.txt", "destination_path": "/b.txt"}],
                },
                "WaitTime": 600,
                "ExceptionOnActionFailure": True,
                "ResultPath": "$.copied",
                "End": True,
            }
        },
    }


class Mapped:
    """A home with a mapped collection that holds one file, and a run that wants it."""

    def __init__(self, globus: LocalGlobus, folder: Path) -> None:
        self.globus = globus
        folder.mkdir()
        (folder / "a.txt").write_text("hello")
        collections = Collections.of_home(globus.home)
        self.collection: Collection = collections.add("mapped", folder, data_access=True)
        self.copy = globus.home.staging_dir / "b.txt"
        created = globus.flows.create_flow(
            "Copy", definition(self.collection.id, globus.staging_id), {}
        )
        self.flow_id = str(created["id"])

    def flow(self) -> globus_sdk.SpecificFlowClient:
        return globus_sdk.SpecificFlowClient(self.flow_id, app=self.globus.app)

    def consent(self) -> globus_sdk.SpecificFlowClient:
        """What a person does in the browser; a token that is held already does not ask again."""
        client = self.flow()
        client.add_app_transfer_data_access_scope(self.collection.id)
        self.globus.app.login(force=True)
        return client

    def at_rest(self, run_id: str) -> dict[str, Any]:
        def poll() -> dict[str, Any] | None:
            run = dict(self.globus.flows.get_run(run_id).data)
            return run if run["status"] != "ACTIVE" else None

        found: dict[str, Any] = until(poll)
        return found


@pytest.fixture
def mapped(own_globus: Callable[..., LocalGlobus], tmp_path: Path) -> Mapped:
    return Mapped(own_globus(), tmp_path / "mapped")


def test_a_run_rests_until_the_consent_is_given(mapped: Mapped) -> None:
    run_id = mapped.flow().run_flow({})["run_id"]
    run = mapped.at_rest(run_id)
    assert run["status"] == "INACTIVE"
    assert run["details"]["code"] == "ConsentRequired"
    gare = to_gare(run["details"])
    assert gare is not None
    (scope,) = gare.authorization_parameters.required_scopes or ()
    assert mapped.collection.id in scope
    assert mapped.flow_id in scope
    assert not mapped.copy.exists()

    auth = globus_sdk.AuthClient(app=mapped.globus.app)
    identity_id = mapped.globus.home.client().client_id

    def is_met() -> bool:
        forest = auth.get_consents(identity_id).to_forest()
        return forest.meets_scope_requirements([scope])

    assert not is_met()
    mapped.consent().resume_run(run_id)
    run = mapped.at_rest(run_id)
    assert run["status"] == "SUCCEEDED", run["details"]
    assert mapped.copy.read_text() == "hello"
    assert is_met()


def test_resumed_without_the_consent_it_rests_again(mapped: Mapped) -> None:
    run_id = mapped.flow().run_flow({})["run_id"]
    mapped.at_rest(run_id)
    mapped.flow().resume_run(run_id)
    assert mapped.at_rest(run_id)["status"] == "INACTIVE"
    assert mapped.globus.flows.cancel_run(run_id)["status"] == "FAILED"
    assert not mapped.copy.exists()


def test_with_the_consent_from_the_beginning_nothing_rests(mapped: Mapped) -> None:
    client = mapped.flow()
    client.add_app_transfer_data_access_scope(mapped.collection.id)
    run = mapped.at_rest(client.run_flow({})["run_id"])
    assert run["status"] == "SUCCEEDED", run["details"]
    assert run["details"]["output"]["copied"]["details"]["status"] == "SUCCEEDED"


def test_it_rests_through_a_restart_of_the_server(mapped: Mapped) -> None:
    run_id = mapped.flow().run_flow({})["run_id"]
    mapped.at_rest(run_id)
    control.stop(mapped.globus.home)
    control.start(mapped.globus.home, compute_port=False)
    assert mapped.at_rest(run_id)["status"] == "INACTIVE"
    mapped.consent().resume_run(run_id)
    assert mapped.at_rest(run_id)["status"] == "SUCCEEDED"


def test_another_identitys_consents_are_not_shown(mapped: Mapped) -> None:
    auth = globus_sdk.AuthClient(app=mapped.globus.app)
    with pytest.raises(globus_sdk.AuthAPIError) as refusal:
        auth.get_consents("7a2b8f0e-0000-4000-8000-000000000001")
    assert refusal.value.http_status == 403


def test_a_collection_keeps_what_it_was_declared_as(mapped: Mapped) -> None:
    collections = Collections.of_home(mapped.globus.home)
    path = mapped.collection.path
    assert collections.add("mapped", path, data_access=True) == mapped.collection
    with pytest.raises(UsageError, match="asks for a consent"):
        collections.add("mapped", path)
