"""Where a build unpacks: never where another build can look, unless the site says that this is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from cib_flows.functions._shared import places
from cib_flows.functions._shared.results import StepFailed

GIB = places.GIB


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(places, "MEMORY_FOLDER", str(folder))
    monkeypatch.setattr(places, "available_memory", lambda: 64 * GIB)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return folder


def test_the_sites_own_choice_wins_and_is_made(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_DISK", str(tmp_path / "disk"))
    found = places.choose_tmpdir("$JOB_DISK/cib", str(tmp_path), in_memory=True)
    assert found == str(tmp_path / "disk" / "cib")
    assert Path(found).is_dir()


def test_memory_is_taken_only_where_the_site_allows_it(memory: Path, tmp_path: Path) -> None:
    need = 1024
    assert places.choose_tmpdir(None, str(tmp_path), need, in_memory=True) == str(memory)
    assert places.choose_tmpdir(None, str(tmp_path), need) != str(memory)


def test_memory_is_not_taken_when_the_build_would_fill_it(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "available_memory", lambda: 3 * GIB)
    assert places.choose_tmpdir(None, str(tmp_path), 2 * GIB, in_memory=True) != str(memory)


def test_no_room_anywhere_is_said(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MIN_FREE_BYTES", 2**62)
    with pytest.raises(StepFailed) as caught:
        places.choose_tmpdir(None, "/nowhere")
    assert caught.value.code == "disk_full"


def test_processors_are_those_that_may_be_used() -> None:
    assert 1 <= places.processors() <= 4096
