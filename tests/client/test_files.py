"""Files that others read while they are written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cib_flows.files import write_whole


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_a_new_file_may_be_read_by_whom_the_umask_lets(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "new" / "record.json", "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "record.json").stat().st_mode) == mode


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    path.chmod(0o640)
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [
        ("record.json", "old")
    ]
