"""Reading where an image's file system lies, from files written by hand and from what nobody wrote."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cib_flows.functions._shared import squash_listing
from cib_flows.functions._shared.sif import (
    DESCRIPTOR,
    HEADER,
    SquashPartition,
    partition_sha256,
    squash_partition,
)
from cib_flows.functions._shared.squash_listing import parse_listing, unreadable

CONTENT = b"hsqs and so on"


def sif(
    *,
    kind: int = 0x4004,
    fstype: int = 1,
    part: int = 2,
    architecture: bytes = b"02\0",
    content: bytes = CONTENT,
) -> bytes:
    """A file with a recipe and one partition, as Apptainer lays them out."""
    table_at, content_at = 4096, 8192
    recipe = DESCRIPTOR.pack(
        0x4001, True, 1, 1, 0, content_at, 1, 1, 0, 0, 0, 0, b"", b""
    )  # fmt: skip
    extra = struct.pack("<ii3s", fstype, part, architecture)
    partition = DESCRIPTOR.pack(
        kind, True, 2, 1, 0, content_at, len(content), len(content), 0, 0, 0, 0, b"x", extra
    )
    table = recipe + partition
    header = HEADER.pack(
        b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC\0", b"01\0", b"02\0", b"", 0, 0, 0, 2,
        table_at, len(table), content_at, len(content),
    )  # fmt: skip
    return header.ljust(table_at, b"\0") + table.ljust(content_at - table_at, b"\0") + content


def test_the_file_system_is_found_and_digested_alone(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    path.write_bytes(sif() + b"a signature that was added later")
    found = squash_partition(str(path))
    assert found is not None
    assert (found.offset, found.size, found.architecture) == (8192, len(CONTENT), "x86_64")
    assert partition_sha256(str(path), found) == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    "content",
    [b"", b"SIF one", sif(kind=0x4006), sif(fstype=2), sif(part=4), sif()[:5000]],
    ids=["empty", "short", "no partition", "ext3", "overlay", "cut off"],
)
def test_a_file_without_one_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.sif"
    path.write_bytes(content)
    assert squash_partition(str(path)) is None


@given(st.binary(max_size=200), st.integers(0, 5000))
def test_no_bytes_are_read_as_anything_but_a_partition_or_none(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.sif"
    content = bytearray(sif())
    content[place : place + len(noise)] = noise
    path.write_bytes(content)
    found = squash_partition(str(path))
    assert found is None or isinstance(found.offset, int)


LISTING = """\
drwxr-xr-x 0/0                     393 2026-11-20 09:21 /
-rw-r--r-- 0/0                      12 2026-11-20 09:21 /opt/cib/lock
-rw-r----- 0/42                    364 2026-11-20 09:21 /etc/shadow
-rw------- 0/0                      10 2026-11-20 09:21 /opt/cib/secret file
drwxr-xr-- 0/0                      10 2026-11-20 09:21 /payload/shut
drwxrwxrwt 0/0                      10 2026-11-20 09:21 /opt/cib/tmp
lrwxrwxrwx 0/0                      27 2026-11-20 09:21 /opt/cib/link -> ../shadow
crw------- 0/0                  1,   3 2026-11-20 09:21 /opt/cib/null
-rw------- 0/0                      10 2026-11-20 09:21 /usr/lib/python3/dist-packages/x.py
-rw------- 0/0                      10 2026-11-20 09:21 /opt/cibx
"""


def test_what_only_the_owner_can_read_is_told_where_it_matters() -> None:
    listing = list(parse_listing(LISTING.encode().splitlines(keepends=True)))
    assert len(listing) == 10
    assert unreadable(listing, ["/opt/cib", "/payload"], everywhere=False) == [
        "/opt/cib/secret file",
        "/payload/shut",
    ]
    assert unreadable(listing, ["/opt"], everywhere=True) == [
        "/opt/cib/secret file",
        "/usr/lib/python3/dist-packages/x.py",
        "/opt/cibx",
    ]


@pytest.mark.parametrize(
    ("prints", "count"),
    [
        ("cat {listing}", 10),
        ('yes "$(tail -n 1 {listing})"', None),
        ("cat {listing}; exit 1", None),
    ],
    ids=["whole", "endless", "damaged"],
)
def test_a_listing_that_fails_or_has_no_end_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prints: str, count: int | None
) -> None:
    (tmp_path / "listing").write_text(LISTING)
    program = tmp_path / "unsquashfs"
    program.write_text("#!/bin/sh\n" + prints.format(listing=tmp_path / "listing"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(squash_listing, "MAX_ENTRIES_LISTED", 1000)
    listing = squash_listing.list_image("x.sif", SquashPartition(0, 1, "x86_64"))
    assert (listing and len(listing)) == count
