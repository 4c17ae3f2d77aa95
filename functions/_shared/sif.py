"""What a SIF file says of itself: where the squashed file system lies in it, and for which architecture.

The layout is that of the SIF specification, version 01: a header of 128 bytes, then descriptors of 585 bytes,
little-endian and packed, as ``apptainer sif list`` shows them.
"""

from __future__ import annotations

import hashlib
import os
import struct

HEADER = struct.Struct("<32s10s3s3s16s8q")
# data type, used, id, group, link, offset, size, padded size, created, modified, uid, gid, name; then 384 bytes
DESCRIPTOR = struct.Struct("<i?3I7q128s384s")
PARTITION_EXTRA = struct.Struct("<ii3s")
MAGIC = b"SIF_MAGIC\0"
PARTITION_TYPE = 0x4004
JSON_TYPE = 0x4006
SBOM_TYPE = 0x4009
SQUASHFS = 1
PRIMARY_SYSTEM = 2
MAX_DESCRIPTORS = 10_000
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
READ_BYTES = 1024 * 1024
# SIF's own numbers -> what ``uname -m`` calls them
ARCHITECTURES = {
    b"01": "i386",
    b"02": "x86_64",
    b"03": "arm",
    b"04": "aarch64",
    b"05": "ppc64",
    b"06": "ppc64le",
    b"11": "s390x",
    b"12": "riscv64",
}


class SquashPartition:
    """The image's file system: ``offset`` and ``size`` in bytes, ``architecture`` as uname says it or ``""``."""

    def __init__(self, offset: int, size: int, architecture: str) -> None:
        self.offset = offset
        self.size = size
        self.architecture = architecture


class SifObject:
    """One object of a SIF: its ``kind`` by SIF's numbers, ``name``, and where it lies, in bytes."""

    def __init__(self, kind: int, name: str, offset: int, size: int, extra: bytes) -> None:
        self.kind = kind
        self.name = name
        self.offset = offset
        self.size = size
        self.extra = extra


def sif_objects(path: str) -> list[SifObject]:
    """The objects that lie within the file, in the order of its table; none for a file that is no SIF."""
    with open(path, "rb") as stream:
        end = os.fstat(stream.fileno()).st_size
        head = stream.read(HEADER.size)
        if len(head) < HEADER.size:
            return []
        fields = HEADER.unpack(head)
        magic, total, offset, size = fields[1], fields[8], fields[9], fields[10]
        if magic != MAGIC or not 0 < total <= MAX_DESCRIPTORS or size < total * DESCRIPTOR.size:
            return []
        if not 0 < offset < end:
            return []
        stream.seek(offset)
        table = stream.read(total * DESCRIPTOR.size)
    objects = []
    for start in range(0, len(table) - DESCRIPTOR.size + 1, DESCRIPTOR.size):
        found = DESCRIPTOR.unpack_from(table, start)
        if found[1] and 0 < found[5] <= end and 0 <= found[6] <= end - found[5]:
            name = found[-2].split(b"\0")[0].decode("utf-8", "replace")
            objects.append(SifObject(found[0], name, found[5], found[6], found[-1]))
    return objects


def squash_partition(path: str) -> SquashPartition | None:
    """The squashfs that an image starts from; None for a file that has none, as SingularityCE's OCI images."""
    for found in sif_objects(path):
        kind, part, architecture = PARTITION_EXTRA.unpack_from(found.extra)
        if (found.kind, kind, part) == (PARTITION_TYPE, SQUASHFS, PRIMARY_SYSTEM):
            name = ARCHITECTURES.get(architecture.rstrip(b"\0"), "")
            return SquashPartition(found.offset, found.size, name)
    return None


def read_object_of(path: str, found: SifObject) -> bytes:
    """What an object holds; empty for one that is too large to be a document."""
    if found.size > MAX_DOCUMENT_BYTES:
        return b""
    with open(path, "rb") as stream:
        stream.seek(found.offset)
        return stream.read(found.size)


def partition_sha256(path: str, partition: SquashPartition) -> str:
    """sha256 of the file system alone, which signing and attaching documents do not change."""
    digest = hashlib.sha256()
    left = partition.size
    with open(path, "rb") as stream:
        stream.seek(partition.offset)
        while left and (chunk := stream.read(min(READ_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
