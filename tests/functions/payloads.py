"""What a run's payload came to, for tests of every way it may come."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import Any

from cib_flows.functions.fetch_payload import fetch_payload
from tests.functions.conftest import Run

Start = Callable[..., Run]
COLLECTION = {"id": "6c54cade-bde5-45c1-bdea-f4bd71dba2cc", "path": "/~/my data.tar.gz"}


def fetched(run: Run) -> dict[str, Any]:
    result = fetch_payload(run.id, run.recipe_sha256)
    assert result["ok"] is True, result
    return result


def refused(run: Run, code: str) -> str:
    result = fetch_payload(run.id, run.recipe_sha256)
    assert result["ok"] is False
    assert result["error"]["code"] == code, result["error"]
    return str(result["error"]["message"])


def content(run: Run) -> dict[str, bytes]:
    root = run.work / "payload"
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()
    }


def archive_of(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as made:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return stream.getvalue()
