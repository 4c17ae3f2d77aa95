"""Lists of tasks and events, filtered and ordered as the service's clients ask."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import globus_sdk
import pytest

from cib_flows.local.transfer.collections import Collections

from .conftest import LocalGlobus, until


@pytest.fixture
def labels(local_globus: LocalGlobus, tmp_path: Path) -> dict[str, str]:
    """Four tasks, by their labels; one deletes, one of the transfers fails."""
    here = Collections.of_home(local_globus.home).add(f"lists-{uuid.uuid4()}", tmp_path).id
    (tmp_path / "a.txt").write_text("a")
    mark = uuid.uuid4().hex[:8]
    made = {}
    for name, source in (("beta", "/a.txt"), ("alpha", "/a.txt"), ("gone", "/nothing")):
        data = globus_sdk.TransferData(
            source_endpoint=here, destination_endpoint=here, label=f"{mark} {name}"
        )
        data.add_item(source, f"/{name}")
        made[name] = local_globus.transfer.submit_transfer(data)["task_id"]
        ended(local_globus, made[name])
    removal = globus_sdk.DeleteData(endpoint=here, label=f"{mark} removal")
    removal.add_item("/a.txt")
    made["removal"] = local_globus.transfer.submit_delete(removal)["task_id"]
    ended(local_globus, made["removal"])
    return {**made, "mark": mark}


def ended(globus: LocalGlobus, task_id: str) -> None:
    until(lambda: globus.transfer.get_task(task_id)["status"] != "ACTIVE")


def found(globus: LocalGlobus, labels: dict[str, str], **query: Any) -> list[str]:
    listed = globus.transfer.task_list(limit=100, **query)
    names = {task_id: name for name, task_id in labels.items()}
    return [names[task["task_id"]] for task in listed if task["task_id"] in names]


def test_tasks_are_filtered(local_globus: LocalGlobus, labels: dict[str, str]) -> None:
    mark = labels["mark"]

    def of(**filters: Any) -> list[str]:
        return found(local_globus, labels, filter=filters)

    assert of(label=f"~{mark} *a") == ["alpha", "beta"]
    assert of(status="FAILED") == ["gone"]
    assert of(status="SUCCEEDED", type="DELETE") == ["removal"]
    assert of(task_id=[labels["beta"], labels["gone"]]) == ["gone", "beta"]
    assert of(label=[f"~{mark}*", f"!~{mark} *a"]) == ["removal", "gone"]
    assert of(label=f"{mark} beta") == ["beta"]
    everything = ["removal", "gone", "alpha", "beta"]
    assert of(request_time="2020-01-01,2999-01-01") == everything
    assert of(request_time="2999-01-01,") == []
    assert of(completion_time=",2020-01-01 00:00:00") == []


def test_tasks_are_ordered(local_globus: LocalGlobus, labels: dict[str, str]) -> None:
    mark = f"label:~{labels['mark']}*"
    assert found(local_globus, labels, filter=mark, orderby="label ASC") == [
        *("alpha", "beta", "gone", "removal"),
    ]
    by_kind = found(local_globus, labels, filter=mark, orderby=["type ASC", "label DESC"])
    assert by_kind == ["removal", "gone", "beta", "alpha"]
    page = local_globus.transfer.task_list(limit=1, offset=1, filter=mark, orderby="label DESC")
    assert (page["total"], page["DATA"][0]["task_id"]) == (4, labels["gone"])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"filter": "colour:red"}, "'colour:red'"),
        ({"filter": "request_time:yesterday"}, "'yesterday'"),
        ({"orderby": "colour ASC"}, "'colour ASC'"),
        ({"orderby": "label UP"}, "'label UP'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    local_globus: LocalGlobus, query: dict[str, str], words: str
) -> None:
    with pytest.raises(globus_sdk.TransferAPIError, match=words) as refusal:
        local_globus.transfer.task_list(**query)
    assert refusal.value.http_status == 400


def test_events_are_filtered(local_globus: LocalGlobus, labels: dict[str, str]) -> None:
    def codes(text: str) -> list[str]:
        answer = local_globus.transfer.task_event_list(
            labels["gone"], query_params={"filter": text}
        )
        return sorted({event["code"] for event in answer})

    assert codes("is_error:1") == ["FILE_NOT_FOUND"]
    assert codes("is_error:0") == ["FILE_NOT_FOUND", "STARTED"]
    assert codes("") == ["FILE_NOT_FOUND", "STARTED"]
