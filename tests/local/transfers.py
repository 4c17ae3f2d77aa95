"""Transfer tasks and refusals as tests look at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import globus_sdk
import pytest
from globus_sdk import TransferData

from .conftest import LocalGlobus, until


def ended(globus: LocalGlobus, task_id: str) -> dict[str, Any]:
    def poll() -> dict[str, Any] | None:
        document: dict[str, Any] = globus.transfer.get_task(task_id).data  # type: ignore[assignment]
        return document if document["status"] in ("SUCCEEDED", "FAILED") else None

    return until(poll)


def transfer(
    globus: LocalGlobus, source: str, destination: str, *items: tuple[str, str], **options: Any
) -> dict[str, Any]:
    data = TransferData(source_endpoint=source, destination_endpoint=destination, **options)
    for source_path, destination_path in items:
        data.add_item(source_path, destination_path)
    return ended(globus, globus.transfer.submit_transfer(data)["task_id"])


def faulty(globus: LocalGlobus, task_id: str) -> dict[str, Any] | None:
    document: dict[str, Any] = globus.transfer.get_task(task_id).data  # type: ignore[assignment]
    return document if document["faults"] else None


def refused(call: Callable[[], Any]) -> tuple[int, str | None]:
    """The status and code of the Transfer service's refusal."""
    with pytest.raises(globus_sdk.TransferAPIError) as refusal:
        call()
    return refusal.value.http_status, refusal.value.code
