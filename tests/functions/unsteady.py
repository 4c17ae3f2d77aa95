"""A server of one large file, over connections that break."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTENT = bytes(range(256)) * 4096  # a mebibyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Unsteady:
    """A server with one file, which sends at most ``drops[0]`` bytes of its next answer and hangs up."""

    content: bytes = CONTENT
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    knows_ranges: bool = True
    heeds_condition: bool = True  # If-Range
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    # what the file becomes once so many requests have been answered
    changes: dict[int, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    manifest: Any = None
    says_length: bool = True
    host: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.host}/image.sif"

    @property
    def ranges(self) -> list[str]:
        return [headers.get("range", "") for headers in self.asked]


def answer(server: Unsteady, handler: BaseHTTPRequestHandler) -> None:
    if server.manifest is not None and "/manifests/" in handler.path:
        body = json.dumps(server.manifest).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return
    number = len(server.asked)
    server.asked.append({key.lower(): value for key, value in handler.headers.items()})
    if number in server.changes:
        server.content, server.headers = server.changes[number]
    if server.statuses and (status := server.statuses.pop(0)) != 200:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    begin, code = 0, 200
    found = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    condition = handler.headers.get("If-Range")
    is_met = condition in server.headers.values() or not server.heeds_condition
    if found and server.knows_ranges and is_met:
        begin, code = int(found[1]), 206
    handler.send_response(416 if code == 206 and begin >= len(server.content) else code)
    if code == 206 and begin >= len(server.content):
        handler.send_header("Content-Range", f"bytes */{len(server.content)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    body = server.content[begin:]
    if code == 206:
        last = len(server.content) - 1
        handler.send_header("Content-Range", f"bytes {begin}-{last}/{len(server.content)}")
    if server.says_length:
        handler.send_header("Content-Length", str(len(body)))
    for key, value in server.headers.items():
        handler.send_header(key, value)
    handler.end_headers()
    limit = server.drops.pop(0) if server.drops else len(body)
    handler.wfile.write(body[:limit])
    handler.wfile.flush()
    if limit < len(body):
        handler.connection.shutdown(socket.SHUT_RDWR)


def serve_unsteady() -> Iterator[Unsteady]:
    made = Unsteady()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(made, self)

        def log_message(self, *_: Any) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    made.host = f"127.0.0.1:{web.server_port}"
    yield made
    web.shutdown()
    web.server_close()
    thread.join()
