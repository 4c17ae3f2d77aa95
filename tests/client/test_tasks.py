"""Calling a registered function: the wire form is the Compute SDK's, and failures are one sentence."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import responses
from globus_compute_sdk.serialize import ComputeSerializer, DillDataBase64, JSONData

from cib_flows.errors import ServiceError
from cib_flows.profiles import Globus
from cib_flows.tasks import call_function, pack_arguments, unpack_result

from .conftest import BUILD_ENDPOINT

COMPUTE = "https://compute.api.globus.org"
FUNCTION_ID = str(uuid.UUID(int=7))
TASK_ID = str(uuid.UUID(int=8))


@pytest.mark.parametrize(
    "kwargs", [{}, {"run_id": "ä\n", "offset": 3, "deep": {"list": [None, True]}}]
)
def test_arguments_are_packed_as_the_sdk_packs_them(kwargs: dict[str, Any]) -> None:
    sdk = ComputeSerializer(strategy_data=JSONData())
    assert pack_arguments(kwargs) == sdk.pack_buffers([sdk.serialize([]), sdk.serialize(kwargs)])


def test_results_are_read_bare_and_packed() -> None:
    sdk = ComputeSerializer(strategy_data=JSONData())
    result = {"ok": True, "log": "ü\n11\n"}
    bare = sdk.serialize(result)
    assert unpack_result(bare) == result
    assert unpack_result(sdk.pack_buffers([bare])) == result


@pytest.mark.parametrize(
    "packed",
    [
        ComputeSerializer(strategy_data=DillDataBase64()).serialize({"ok": True}),
        "11\n[1]",
        "11\n{",
        "",
    ],
)
def test_nothing_but_a_json_object_is_read(packed: str) -> None:
    with pytest.raises(ServiceError, match="JSON"):
        unpack_result(packed)


def submit(cloud: responses.RequestsMock) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    def accept(request: Any) -> tuple[int, dict[str, str], str]:
        sent.append(json.loads(request.body))
        return 200, {}, json.dumps({"tasks": {FUNCTION_ID: [TASK_ID]}, "task_group_id": TASK_ID})

    cloud.add_callback("POST", f"{COMPUTE}/v3/endpoints/{BUILD_ENDPOINT}/submit", accept)
    return sent


def call(globus: Globus) -> dict[str, Any]:
    return call_function(
        globus,
        "watch_build",
        FUNCTION_ID,
        BUILD_ENDPOINT,
        {"profile": "control"},
        {"run_id": "r"},
        timeout_s=0,
    )


def test_a_call_returns_what_the_function_returned(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    sent = submit(cloud)
    cloud.get(
        f"{COMPUTE}/v2/tasks/{TASK_ID}",
        json={"task_id": TASK_ID, "status": "success", "result": '11\n{"ok": true}'},
    )
    assert call(globus) == {"ok": True}
    (request,) = sent
    assert request["user_endpoint_config"] == {"profile": "control"}
    assert request["tasks"] == {FUNCTION_ID: [pack_arguments({"run_id": "r"})]}
    assert request["result_serializers"] == ["globus_compute_sdk.serialize.JSONData"]


def test_a_function_that_raised_is_reported_by_its_last_line(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    submit(cloud)
    cloud.get(
        f"{COMPUTE}/v2/tasks/{TASK_ID}",
        json={
            "task_id": TASK_ID,
            "status": "failed",
            "exception": "+++++\nTraceback …\n  File …\nKeyError: 'x'\n\n-----\n",
        },
    )
    with pytest.raises(ServiceError, match=r"could not run watch_build: KeyError: 'x'$"):
        call(globus)


def test_an_endpoint_that_does_not_answer_in_time_is_named(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    submit(cloud)
    cloud.get(
        f"{COMPUTE}/v2/tasks/{TASK_ID}",
        json={"task_id": TASK_ID, "status": "waiting-for-ep", "details": {}},
    )
    with pytest.raises(ServiceError, match=BUILD_ENDPOINT):
        call(globus)


def test_an_endpoint_that_refuses_the_configuration_says_why(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    cloud.post(
        f"{COMPUTE}/v3/endpoints/{BUILD_ENDPOINT}/submit",
        status=422,
        json={"code": "SEMANTICALLY_INVALID", "message": "'profile' was unexpected"},
    )
    with pytest.raises(ServiceError, match="'profile' was unexpected"):
        call(globus)
