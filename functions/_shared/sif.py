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
SQUASHFS = 1
PRIMARY_SYSTEM = 2
MAX_DESCRIPTORS = 10_000
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


def squash_partition(path: str) -> SquashPartition | None:
    """The squashfs that an image starts from; None for a file that has none, as SingularityCE's OCI images."""
    with open(path, "rb") as stream:
        end = os.fstat(stream.fileno()).st_size
        head = stream.read(HEADER.size)
        if len(head) < HEADER.size:
            return None
        fields = HEADER.unpack(head)
        magic, total, offset, size = fields[1], fields[8], fields[9], fields[10]
        if magic != MAGIC or not 0 < total <= MAX_DESCRIPTORS or size < total * DESCRIPTOR.size:
            return None
        if not 0 < offset < end:
            return None
        stream.seek(offset)
        table = stream.read(total * DESCRIPTOR.size)
    for start in range(0, len(table) - DESCRIPTOR.size + 1, DESCRIPTOR.size):
        found = DESCRIPTOR.unpack_from(table, start)
        if not found[1] or found[0] != PARTITION_TYPE:
            continue
        kind, part, architecture = PARTITION_EXTRA.unpack_from(found[-1])
        is_inside = 0 < found[5] <= end and 0 <= found[6] <= end - found[5]
        if kind == SQUASHFS and part == PRIMARY_SYSTEM and is_inside:
            name = ARCHITECTURES.get(architecture.rstrip(b"\0"), "")
            return SquashPartition(found[5], found[6], name)
    return None


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
