"""Archives that strangers made: what is unpacked, what is refused, and that nothing leaves its folder."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cib_flows.functions._shared.archives import refuse_odd_files, unpack
from cib_flows.functions._shared.files import tree_digest
from cib_flows.functions._shared.results import StepFailed

LIMIT = 1_000_000
Maker = Callable[[tarfile.TarFile], object]


def tar(path: Path, *entries: tuple[str, dict[str, object], bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, fields, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, *entries: tuple[str, int, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work" / "payload"
    made.mkdir(parents=True)
    return made


def outside(folder: Path) -> list[str]:
    """What stands beside the folder that was to be unpacked into."""
    return sorted(str(p) for p in folder.parent.rglob("*") if folder not in (p, *p.parents))


def refusal(archive: Path, folder: Path, limit: int = LIMIT) -> str:
    def take() -> None:
        unpack(str(archive), archive.name, str(folder), limit)
        refuse_odd_files(str(folder), limit)

    with pytest.raises(StepFailed) as refused:
        take()
    assert refused.value.code == "payload_refused"
    assert outside(folder) == []
    return refused.value.message


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_of_a_folder_is_unpacked_as_it_is(tmp_path: Path, folder: Path, mode: str) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (source / "sub" / "run.sh").chmod(0o755)
    (source / "data").write_bytes(b"\x00" * 5000)
    (source / "link").symlink_to("sub/run.sh")
    os.link(source / "data", source / "zz-same")
    archive = tmp_path / "a.bin"
    with tarfile.open(archive, mode) as made:  # type: ignore[call-overload]
        made.add(source, ".")
    assert unpack(str(archive), "a.bin", str(folder), LIMIT) is True
    assert tree_digest(str(folder)) == tree_digest(str(source))
    refuse_odd_files(str(folder), LIMIT)


def test_a_zip_is_unpacked_with_its_execute_bits_and_links(tmp_path: Path, folder: Path) -> None:
    archive = zipped(
        tmp_path / "a.zip",
        ("top/", 0o40755, b""),
        ("top/run.sh", 0o100755, b"#!/bin/sh\n"),
        ("top/data", 0o100600, b"x"),
        ("top/link", stat.S_IFLNK | 0o777, b"data"),
    )
    assert unpack(str(archive), "a.zip", str(folder), LIMIT) is True
    assert (folder / "top/link").read_bytes() == b"x"
    assert os.access(folder / "top/run.sh", os.X_OK)
    assert (folder / "top/data").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["model.pt", "x-1.0-py3-none-any.whl", "arrays.npz", "book.xlsx"])
def test_a_format_that_is_a_zip_inside_stays_a_file(
    tmp_path: Path, folder: Path, name: str
) -> None:
    archive = zipped(tmp_path / name, ("a", 0o100644, b"x"))
    assert unpack(str(archive), name, str(folder), LIMIT) is False


@pytest.mark.parametrize("name", ["a.zip", "A.ZIP", "main", "v1.2.3", "download"])
def test_a_zip_without_another_formats_name_is_unpacked(
    tmp_path: Path, folder: Path, name: str
) -> None:
    archive = zipped(tmp_path / "archive", ("a", 0o100644, b"x"))
    assert unpack(str(archive), name, str(folder), LIMIT) is True


@pytest.mark.parametrize(
    "content",
    [b"", b"plain text", b"\x00" * 2048, gzip.compress(b"no tar inside", mtime=0), b"PK\x05\x06"],
)
def test_any_other_file_is_no_archive(tmp_path: Path, folder: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert unpack(str(tmp_path / "x"), "x", str(folder), LIMIT) is False
    assert list(folder.iterdir()) == []


LINK = {"type": tarfile.SYMTYPE}
HARD = {"type": tarfile.LNKTYPE}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("../x", {}, b"x")], "leaves its folder: ../x"),
        ([("/tmp/cib-flows-absolute", {}, b"x")], "leaves its folder"),
        ([("a/../../x", {}, b"x")], "leaves its folder"),
        ([("..\\x", {}, b"x")], "leaves its folder"),
        ([("l", {**LINK, "linkname": "/etc"}, b"")], "link that leaves its folder: l -> /etc"),
        ([("a/l", {**LINK, "linkname": "../../x"}, b"")], "link that leaves"),
        ([("l", {**LINK, "linkname": ".."}, b""), ("l/x", {}, b"x")], "link that leaves"),
        ([("h", {**HARD, "linkname": "../../etc/passwd"}, b"")], "leaves its folder"),
        ([("h", {**HARD, "linkname": "/etc/passwd"}, b"")], "leaves its folder"),
        ([("d", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}, b"")], "device or pipe: d"),
        ([("d", {"type": tarfile.BLKTYPE}, b"")], "device or pipe: d"),
        ([("p", {"type": tarfile.FIFOTYPE}, b"")], "device or pipe: p"),
        (
            # each link stays inside by its name; the second, reached through the first, does not
            [
                ("a/b/c/x", {}, b""),
                ("a/b/c/up", {**LINK, "linkname": "../../.."}, b""),
                ("a/b/c/up/out", {**LINK, "linkname": "../../../x"}, b""),
            ],
            "link that leaves it: out",
        ),
        ([("a", {}, b"x"), ("a/b", {}, b"x")], "cannot be unpacked"),
        ([("a/b", {}, b"x"), ("a", {}, b"x")], "cannot be unpacked"),
        ([("a" * 300, {}, b"x")], "cannot be unpacked"),
    ],
)  # fmt: skip
def test_a_tar_entry_that_could_do_harm_is_refused(
    tmp_path: Path, folder: Path, entries: list[tuple[str, dict[str, object], bytes]], words: str
) -> None:
    assert words in refusal(tar(tmp_path / "a.tar.gz", *entries), folder)
    assert not Path("/tmp/cib-flows-absolute").exists()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("../x", 0o100644, b"x")], "leaves its folder"),
        ([("/x", 0o100644, b"x")], "leaves its folder"),
        ([("l", stat.S_IFLNK, b"/etc/passwd")], "link that leaves"),
        ([("l", stat.S_IFLNK, b".."), ("l/x", 0, b"x")], "link that leaves"),
        ([("l", stat.S_IFLNK, b"a\x00b")], "cannot be unpacked"),
        ([("l", stat.S_IFLNK, b"a" * 100_000)], "cannot be unpacked"),
    ],
)
def test_a_zip_entry_that_could_do_harm_is_refused(
    tmp_path: Path, folder: Path, entries: list[tuple[str, int, bytes]], words: str
) -> None:
    assert words in refusal(zipped(tmp_path / "a.zip", *entries), folder)


def test_an_entry_written_through_a_link_inside_stays_inside(tmp_path: Path, folder: Path) -> None:
    archive = tar(
        tmp_path / "a.tar.gz",
        ("real/x", {}, b"1"),
        ("link", {**LINK, "linkname": "real"}, b""),
        ("link/y", {}, b"2"),
    )
    assert unpack(str(archive), "a.tar.gz", str(folder), LIMIT) is True
    assert (folder / "real" / "y").read_bytes() == b"2"


def test_a_later_entry_replaces_a_link_and_does_not_write_through_it(
    tmp_path: Path, folder: Path
) -> None:
    archive = tar(
        tmp_path / "a.tar.gz",
        ("x", {}, b"1"),
        ("l", {**LINK, "linkname": "x"}, b""),
        ("l", {}, b"2"),
    )
    unpack(str(archive), "a.tar.gz", str(folder), LIMIT)
    assert ((folder / "x").read_bytes(), (folder / "l").read_bytes()) == (b"1", b"2")


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, folder: Path) -> None:
    bomb = b"\x00" * (3 * LIMIT)
    assert "limit of 1000000 bytes" in refusal(
        zipped(tmp_path / "a.zip", ("x", 0o100644, bomb)), folder
    )
    assert "limit of 1000000 bytes" in refusal(tar(tmp_path / "a.tgz", ("x", {}, bomb)), folder)
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= 2 * LIMIT


def test_a_sparse_file_of_terabytes_is_refused_before_it_is_written(
    tmp_path: Path, folder: Path
) -> None:
    archive = tmp_path / "sparse.tar"
    says = {"major": "1", "minor": "0", "name": "big", "realsize": str(10**13)}
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo("GNUSparseFile.0/big")
        info.pax_headers = {f"GNU.sparse.{key}": value for key, value in says.items()}
        info.size = 512
        made.addfile(info, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    assert f"limit of {LIMIT} bytes" in refusal(archive, folder)
    assert list(folder.iterdir()) == []


def zip_of(*names: bytes, times: int = 1) -> bytes:
    """A zip archive of nothing but a list of entries."""
    head = struct.pack("<4s4B4HL2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0)
    entries = b"".join(head + struct.pack("<5H2L", len(n), 0, 0, 0, 0, 0, 0) + n for n in names)
    entries *= times
    return entries + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entries), 0, 0)


def test_an_entry_without_a_name_is_damage(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of(b""))
    assert "damaged" in refusal(archive, folder)


def test_a_list_of_millions_of_entries_is_not_read_into_memory(
    tmp_path: Path, folder: Path
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of(b"n" * 60_000, times=1200))
    assert "its list of entries is too long" in refusal(archive, folder)


def test_many_copies_by_hard_links_count_as_copies(tmp_path: Path, folder: Path) -> None:
    entries = [("x", {}, b"x" * 400_000)]
    entries += [(f"h{n}", {**HARD, "linkname": "x"}, b"") for n in range(3)]
    assert "limit of 1000000 bytes" in refusal(tar(tmp_path / "a.tgz", *entries), folder)


def test_a_header_that_claims_gigabytes_is_not_read_into_memory(
    tmp_path: Path, folder: Path
) -> None:
    """A pax header or long name is read in one piece by the standard library."""
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("header")
        info.type, info.size = kind, 20 * 1024 * 1024
        archive = tmp_path / "a.tar.gz"
        with gzip.open(archive, "wb") as stream:
            stream.write(info.tobuf(tarfile.USTAR_FORMAT))
            stream.write(b"a" * info.size)
            stream.write(b"\x00" * 10240)
        assert "a header is too long" in refusal(archive, folder)


def test_damaged_archives_are_refused_and_never_raise_anything_else(
    tmp_path: Path, folder: Path
) -> None:
    chance = random.Random(1)
    whole = []
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        content = bytes(chance.randrange(256) for _ in range(3000))
        path = tar(
            tmp_path / "w", ("a/x", {}, content), ("l", {**LINK, "linkname": "a"}, b""), mode=mode
        )
        whole.append(path.read_bytes())
    whole.append(
        zipped(tmp_path / "z", ("a/x", 0o100644, b"x" * 3000), ("é", 0, b"y")).read_bytes()
    )
    ends = {"unpacked": 0, "no archive": 0, "refused": 0}
    for number in range(400):
        data = bytearray(whole[number % len(whole)])
        if number % 3 == 0:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        archive = tmp_path / "damaged"
        archive.write_bytes(data)
        place = folder / str(number)
        place.mkdir()
        try:
            ends["unpacked" if unpack(str(archive), "x", str(place), LIMIT) else "no archive"] += 1
        except StepFailed as refused:
            ends["refused"] += refused.code == "payload_refused"
    assert sum(ends.values()) == 400
    assert ends["refused"] > 20
    assert outside(folder) == []


def test_a_folder_is_looked_through_for_what_leaves_it(tmp_path: Path) -> None:
    root = tmp_path / "payload"
    (root / "a").mkdir(parents=True)
    (root / "a" / "inside").symlink_to("../a")
    (root / "a" / "dangling").symlink_to("nothing")
    refuse_odd_files(str(root), LIMIT)
    os.mkfifo(root / "pipe")
    with pytest.raises(StepFailed, match="device or pipe: pipe"):
        refuse_odd_files(str(root), LIMIT)
    (root / "pipe").unlink()
    (root / "a" / "out").symlink_to(tmp_path)
    with pytest.raises(StepFailed, match="link that leaves it: a/out"):
        refuse_odd_files(str(root), LIMIT)
    (root / "a" / "out").unlink()
    (root / "big").write_bytes(b"x" * 11)
    with pytest.raises(StepFailed, match="limit of 10 bytes"):
        refuse_odd_files(str(root), 10)


def test_a_digest_follows_content_and_nothing_else(tmp_path: Path) -> None:
    def made(name: str) -> Path:
        root = tmp_path / name
        (root / "sub" / "empty").mkdir(parents=True)
        (root / "b").write_bytes(b"2")
        (root / "sub" / "a").write_bytes(b"1")
        (root / "link").symlink_to("b")
        (root / os.fsdecode(b"\xff")).write_bytes(b"")
        return root

    first, second = made("first"), made("second")
    plain = tree_digest(str(first))
    assert plain[1:] == (2, 3)
    os.utime(second / "b", (1, 1))
    (second / "b").chmod(0o600)
    assert tree_digest(str(second)) == plain
    (second / "b").chmod(0o700)
    assert tree_digest(str(second)) != plain
    (second / "b").chmod(0o600)
    (second / "link").unlink()
    (second / "link").symlink_to("sub/a")
    assert tree_digest(str(second)) != plain
    (first / "sub" / "empty").rmdir()
    assert tree_digest(str(first)) != plain


def test_folders_in_folders_without_end_are_refused(tmp_path: Path) -> None:
    """Each level would take a frame of Python's stack, and more than a path may hold."""
    deep = tmp_path.joinpath("payload", *["d"] * 250)
    deep.mkdir(parents=True)
    with pytest.raises(StepFailed, match="more than 200 deep"):
        refuse_odd_files(str(tmp_path / "payload"), 10_000)
    tree_digest(str(tmp_path / "payload"))
