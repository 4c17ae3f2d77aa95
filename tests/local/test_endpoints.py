"""Endpoints that daemons register: the routes, and what a submission to one that is away becomes."""

from __future__ import annotations

import uuid

import globus_sdk
import pytest

from .conftest import JSON_DATA, LocalGlobus, pack

BODY = {"endpoint_name": "site", "display_name": "A site", "metadata": {"hostname": "login1"}}


def register(globus: LocalGlobus, **changes: object) -> str:
    answer = globus.compute_v3.register_endpoint({**BODY, **changes})
    found: str = answer["endpoint_id"]
    return found


def test_a_registered_endpoint_gets_its_queues_and_is_listed(local_globus: LocalGlobus) -> None:
    answer = local_globus.compute_v3.register_endpoint(BODY).data
    assert answer["command_queue_info"]["queue"] == f"{answer['endpoint_id']}.commands"
    publishing = answer["heartbeat_queue_info"]["queue_publish_kwargs"]
    assert publishing["exchange"] == answer["heartbeat_queue_info"]["exchange"]
    found = local_globus.compute_v2.get_endpoint(answer["endpoint_id"])
    assert (found["name"], found["display_name"]) == ("site", "A site")
    assert found["hostname"] == "login1"
    status = local_globus.compute_v2.get_endpoint_status(answer["endpoint_id"])
    assert status["status"] == "offline"


def test_registering_again_keeps_the_id_and_deleting_forgets_it(local_globus: LocalGlobus) -> None:
    endpoint_id = register(local_globus)
    again = local_globus.compute_v3.update_endpoint(endpoint_id, {**BODY, "display_name": "New"})
    assert again["endpoint_id"] == endpoint_id
    assert local_globus.compute_v2.get_endpoint(endpoint_id)["display_name"] == "New"
    local_globus.compute_v2.delete_endpoint(endpoint_id)
    with pytest.raises(globus_sdk.GlobusAPIError) as refused:
        local_globus.compute_v2.get_endpoint(endpoint_id)
    assert refused.value.http_status == 404


def test_a_locked_endpoint_does_not_register(local_globus: LocalGlobus) -> None:
    endpoint_id = register(local_globus)
    assert local_globus.compute_v3.lock_endpoint(endpoint_id)["endpoint_id"] == endpoint_id
    with pytest.raises(globus_sdk.GlobusAPIError) as refused:
        local_globus.compute_v3.update_endpoint(endpoint_id, BODY)
    assert (refused.value.http_status, refused.value.code) == (423, "RESOURCE_LOCKED")


def test_the_built_in_endpoint_is_nobody_elses(local_globus: LocalGlobus) -> None:
    for attempt in (
        lambda: local_globus.compute_v3.update_endpoint(local_globus.endpoint_id, BODY),
        lambda: local_globus.compute_v2.delete_endpoint(local_globus.endpoint_id),
    ):
        with pytest.raises(globus_sdk.GlobusAPIError) as refused:
            attempt()
        assert refused.value.http_status == 409


def test_functions_that_an_endpoint_does_not_allow_are_refused(local_globus: LocalGlobus) -> None:
    good = local_globus.register("def good():\n    return 1\n")
    bad = local_globus.register("def bad():\n    return 1\n")
    endpoint_id = register(local_globus, allowed_functions=[good])
    answer = local_globus.compute_v3.get_endpoint_allowlist(endpoint_id)
    assert (answer["restricted"], answer["functions"]) == (True, [good])
    body = {"tasks": {bad: [pack([], {})]}}
    with pytest.raises(globus_sdk.GlobusAPIError) as refused:
        local_globus.compute_v3.submit(endpoint_id, body)
    assert (refused.value.http_status, refused.value.code) == (403, "FUNCTION_NOT_PERMITTED")


def test_tasks_for_an_endpoint_that_is_away_wait(local_globus: LocalGlobus) -> None:
    function = local_globus.register("def one():\n    return 1\n")
    endpoint_id = register(local_globus)
    body = {"tasks": {function: [pack([], {})]}, "result_serializers": [JSON_DATA]}
    (task_id,) = local_globus.compute_v3.submit(endpoint_id, body)["tasks"][function]
    assert local_globus.compute_v2.get_task(task_id)["status"] == "waiting-for-ep"


@pytest.mark.parametrize(
    "changes",
    [{"endpoint_name": ""}, {"endpoint_name": "x" * 200}, {"allowed_functions": ["not an id"]}],
)
def test_a_registration_that_makes_no_sense_is_refused(
    local_globus: LocalGlobus, changes: dict[str, object]
) -> None:
    with pytest.raises(globus_sdk.GlobusAPIError) as refused:
        register(local_globus, **changes)
    assert refused.value.http_status == 422
    assert next(iter(changes)) in refused.value.text


def test_submitting_to_no_endpoint_is_refused(local_globus: LocalGlobus) -> None:
    function = local_globus.register("def one():\n    return 1\n")
    with pytest.raises(globus_sdk.GlobusAPIError) as refused:
        local_globus.compute_v3.submit(uuid.uuid4(), {"tasks": {function: [pack([], {})]}})
    assert refused.value.http_status == 404
