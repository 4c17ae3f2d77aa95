"""The administrator's line that lets workers start only in images that a certain key signed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cib_flows.errors import ServiceError
from cib_flows.profiles import connect
from cib_flows.tasks import call_function

from .conftest import REPOSITORY, LocalGlobus
from .test_trust import keys, make_key

__all__ = ["keys"]

SOURCE = "def answer():\n    return {'answer': 42}\n"


def documented_line(key: str) -> str:
    text = (REPOSITORY / "docs" / "endpoint.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("apptainer verify --key ")]
    return line.replace("/etc/cib-flows/sign.pub", key)


def required(globus: LocalGlobus, key: str) -> None:
    """Put the line into the template, and begin with new workers."""
    template = globus.home / "endpoint" / "user_config_template.yaml.j2"
    lines = [line for line in template.read_text().splitlines() if "apptainer verify" not in line]
    at = next(n for n, line in enumerate(lines) if line.strip().startswith("image="))
    lines.insert(at + 1, f"      {documented_line(key)}")
    template.write_text("\n".join(lines) + "\n")
    for verb in ("stop", "start"):
        assert globus.cli("local", verb, timeout=60).code == 0


def called(globus: LocalGlobus, how: dict[str, Any]) -> Any:
    with mock.patch.dict(os.environ):
        there = connect("local", str(globus.home))
        registered = there.compute.register_function(
            {"function_name": "answer", "function_code": SOURCE, "serialized": False}
        )
        function, config = str(registered["function_uuid"]), how["user_endpoint_config"]
        return call_function(there, "answer", function, how["endpoint_id"], config, {}, 300)


def test_workers_start_in_signed_images_only(
    start_globus: Callable[..., LocalGlobus], keys: tuple[str, str], tmp_path: Path
) -> None:
    globus = start_globus(sign_key=keys[0], verify_keys=[keys[1]])
    made = globus.built({"name": "guarded", "base": {"image": "python:3.11-slim"}})
    required(globus, keys[1])
    assert called(globus, made["executor"]) == {"answer": 42}
    required(globus, make_key(tmp_path, "other")[1])
    with pytest.raises(ServiceError, match=r"FATAL: +Failed to verify container"):
        called(globus, made["executor"])
