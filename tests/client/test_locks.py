"""From a lock to a spec, and how a difference is told to a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cib_flows.cli import main
from cib_flows.cli.locks import MAX_SHOWN, describe_difference
from cib_flows.errors import UsageError
from cib_flows.locks import locked_spec
from cib_flows.spec import ContainerSpec

SPEC = ContainerSpec.from_dict({"name": "demo", "base": {"image": "debian:12"}, "pip": ["six"]})
LOCK: dict[str, Any] = {"lock_version": 1, "spec": SPEC.complete()}
CONTAINER_ID = "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b01"


class FakeCatalogue:
    """What ``locked_spec`` asks of an endpoint."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def lock(self, reference: str) -> dict[str, Any]:
        return {"lock": LOCK, "lock_sha256": "b" * 64}

    def show(self, reference: str) -> dict[str, Any]:
        return {"container_id": CONTAINER_ID}

    def keep_lock(self, lock: Any) -> str:
        self.kept.append(lock)
        return "a" * 64


def locked(source: str, catalogue: FakeCatalogue | None = None) -> dict[str, Any]:
    return locked_spec(catalogue or FakeCatalogue(), source).to_dict()  # type: ignore[arg-type]


def test_a_containers_lock_is_named_by_the_containers_id() -> None:
    spec = locked("demo:latest")
    assert spec["locked"] == CONTAINER_ID
    assert spec["tag"] == "latest-locked"
    assert spec["pip"] == ["six"]


def test_a_file_is_sent_to_the_endpoint_as_it_was_printed_or_as_json(tmp_path: Path) -> None:
    for document in (LOCK, {"ok": True, "lock": LOCK, "lock_sha256": "x"}):
        catalogue = FakeCatalogue()
        path = tmp_path / "lock.json"
        path.write_text(json.dumps(document))
        assert locked(str(path), catalogue)["locked"] == "a" * 64
        assert catalogue.kept == [LOCK]


@pytest.mark.parametrize("source", ["folder/pandas", "pandas.lock.json"])
def test_a_file_that_is_not_there_is_not_taken_for_a_container(source: str) -> None:
    with pytest.raises(UsageError, match=f"The lock {source} cannot be read: No such file"):
        locked(source)


def test_a_tag_does_not_grow_with_every_build_from_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOCK, "spec", {**SPEC.complete(), "tag": "v1-locked"})
    assert locked("demo")["tag"] == "v1-locked"
    monkeypatch.setitem(LOCK, "spec", {**SPEC.complete(), "tag": "t" * 64})
    assert len(locked("demo")["tag"]) == 64


@pytest.mark.parametrize("text", ["", "[]", '{"name": "demo"}', "name: demo"])
def test_another_file_is_no_lock(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"spec\.yaml"):
        locked(str(path))


@pytest.mark.parametrize("words", [[], ["spec.yaml", "--locked", "demo"]])
def test_a_build_takes_a_spec_or_a_lock(words: list[str]) -> None:
    answer = CliRunner().invoke(main, ["build", *words])
    assert answer.exit_code == 2
    assert "either SPEC or --locked" in answer.output


def difference(**fields: Any) -> dict[str, Any]:
    none: dict[str, Any] = {"total": 0, "added": {}, "removed": {}, "changed": {}}
    return {
        "same_image": False,
        "base": None,
        "packages": {"debian": none, "pip": none, "conda": none},
        "environment": none,
        "recipe": [],
        "bytes": 0,
        **fields,
    }


def test_a_difference_is_told_line_by_line() -> None:
    pip = {"total": 3, "added": {"a": "1"}, "removed": {"b": "2"}, "changed": {"c": ["1", "2"]}}
    found = difference(
        base={"images": ["debian:12", "debian:13"], "digests": ["sha256:" + "a" * 64, ""]},
        packages={"debian": difference()["environment"], "pip": pip},
        recipe=["--- first", "+++ second", "@@ -1 +1 @@", "-From: x", "+From: y"],
        bytes=-2048,
    )
    assert describe_difference(found) == [
        "base: debian:12 became debian:13 (sha256:aaaaaaaaaaaa, unknown)",
        "pip: + a 1",
        "pip: - b 2",
        "pip:   c 1 -> 2",
        "recipe: @@ -1 +1 @@",
        "recipe: -From: x",
        "recipe: +From: y",
        "size: -2 KiB",
    ]


def test_files_are_told_with_their_number() -> None:
    same = difference(content={"identical": True})
    assert describe_difference(same)[-1] == "Their files are content-identical."
    rows = [{"path": f"/{n}", "what": "content"} for n in range(MAX_SHOWN + 5)]
    content = {"identical": False, "differences": rows, "differing": 500, "compared": 900}
    lines = describe_difference(difference(content=content))
    assert lines[-2:] == [
        f"… and {500 - MAX_SHOWN} more, see --json",
        "500 of 900 paths differ.",
    ]
    assert describe_difference({"same_image": True}) == ["Both are the same image."]
