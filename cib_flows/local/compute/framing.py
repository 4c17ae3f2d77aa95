"""Frames between the server and a user endpoint process: four bytes of length, then one JSON
object."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, BinaryIO

__all__ = ["encode", "read", "read_async"]

Message = dict[str, Any]

_LENGTH = struct.Struct(">I")


def encode(message: Message) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


def read(stream: BinaryIO) -> Message | None:
    """The next message; None at the end of the stream, even one that cuts a message short."""
    head = _read_exactly(stream, _LENGTH.size)
    body = _read_exactly(stream, _LENGTH.unpack(head)[0]) if head is not None else None
    return None if body is None else _decode(body)


def _read_exactly(stream: BinaryIO, size: int) -> bytes | None:
    data = stream.read(size)
    return data if len(data) == size else None


async def read_async(stream: asyncio.StreamReader) -> Message | None:
    """As :func:`read`."""
    try:
        head = await stream.readexactly(_LENGTH.size)
        return _decode(await stream.readexactly(_LENGTH.unpack(head)[0]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _decode(body: bytes) -> Message:
    message: Message = json.loads(body)
    return message
