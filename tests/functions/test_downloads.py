"""Images that are fetched over connections that break: at the wire, from a server that drops them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared import downloads
from cib_flows.functions.download_image import download_image
from cib_flows.functions.pull_image import pull_image

from .conftest import Site

CONTENT = bytes(range(256)) * 4096  # a mebibyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"


@dataclass
class Unsteady:
    """A server with one file, which sends at most ``drops[0]`` bytes of its next answer and hangs up."""

    content: bytes = CONTENT
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    knows_ranges: bool = True
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
    if found and server.knows_ranges and condition in server.headers.values():
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


@pytest.fixture
def server(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unsteady]:
    monkeypatch.setattr(downloads, "ATTEMPT_PAUSE_S", 0.0)
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
    site.set(payload_hosts=[made.host])
    yield made
    web.shutdown()
    web.server_close()
    thread.join()


def incoming(site: Site) -> list[str]:
    return sorted(os.listdir(site.root / "incoming"))


def fetched(result: dict[str, Any], site: Site) -> dict[str, Any]:
    assert result["ok"], result
    assert Path(result["path"]).read_bytes() == CONTENT
    assert result["sha256"] == SHA256
    assert incoming(site) == [f"{SHA256}.sif"]
    return result


def refused(result: dict[str, Any], code: str) -> str:
    assert not result["ok"]
    assert result["error"]["code"] == code, result
    return str(result["error"]["message"])


def test_a_steady_server_is_asked_once(site: Site, server: Unsteady) -> None:
    assert fetched(download_image(server.url, SHA256), site)["resumed_at"] == []
    assert server.ranges == [""]


def test_it_goes_on_where_the_connection_broke(site: Site, server: Unsteady) -> None:
    server.drops = [300_000, 300_000, 1]
    result = fetched(download_image(server.url, SHA256), site)
    assert result["resumed_at"] == [300_000, 600_000, 600_001]
    assert server.ranges == ["", "bytes=300000-", "bytes=600000-", "bytes=600001-"]
    assert all(headers["if-range"] == '"one"' for headers in server.asked[1:])


def test_the_next_call_goes_on_where_the_last_one_gave_up(site: Site, server: Unsteady) -> None:
    server.drops = [500_000, 0, 0, 0, 0, 0]
    said = refused(download_image(server.url, SHA256), "network")
    assert "broke off after 500000 bytes" in said
    assert incoming(site) == [f"{SHA256}.part", f"{SHA256}.part.json"]
    server.asked.clear()
    assert fetched(download_image(server.url, SHA256), site)["resumed_at"] == [500_000]
    assert server.ranges == ["bytes=500000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(site: Site, server: Unsteady) -> None:
    old = b"x" * len(CONTENT)
    server.content, server.drops = old, [400_000]
    server.changes[1] = (CONTENT, {"ETag": '"two"'})
    assert fetched(download_image(server.url, SHA256), site)["resumed_at"] == []
    assert server.ranges == ["", "bytes=400000-"]


def test_a_changed_file_whose_tag_lies_is_noticed_and_fetched_anew(
    site: Site, server: Unsteady
) -> None:
    server.content, server.drops = b"x" * len(CONTENT), [400_000]
    server.changes[1] = (CONTENT, {"ETag": '"one"'})
    assert fetched(download_image(server.url, SHA256), site)["resumed_at"] == [400_000]
    assert server.ranges == ["", "bytes=400000-", ""]


def test_a_date_serves_where_there_is_no_strong_tag(site: Site, server: Unsteady) -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    server.headers, server.drops = {"ETag": 'W/"weak"', "Last-Modified": date}, [1000]
    assert fetched(download_image(server.url, SHA256), site)["resumed_at"] == [1000]
    assert server.asked[1]["if-range"] == date


@pytest.mark.parametrize(
    ("headers", "knows_ranges"),
    [({}, True), ({"ETag": 'W/"weak"'}, True), ({"ETag": '"one"'}, False)],
)
def test_a_server_that_cannot_go_on_is_asked_for_all_of_it(
    site: Site, server: Unsteady, headers: dict[str, str], knows_ranges: bool
) -> None:
    server.headers, server.knows_ranges, server.drops = headers, knows_ranges, [1000, 2000]
    assert fetched(download_image(server.url, SHA256), site)["resumed_at"] == []
    assert len(server.asked) == 3


def test_a_part_that_is_the_whole_file_is_taken(site: Site, server: Unsteady) -> None:
    server.drops = [500_000, 0, 0, 0, 0, 0]
    refused(download_image(server.url, SHA256), "network")
    (site.root / "incoming" / f"{SHA256}.part").write_bytes(CONTENT)
    fetched(download_image(server.url, SHA256), site)
    assert server.ranges[-1] == f"bytes={len(CONTENT)}-"


def test_a_part_that_is_longer_than_the_file_is_thrown_away(site: Site, server: Unsteady) -> None:
    server.drops = [500_000, 0, 0, 0, 0, 0]
    refused(download_image(server.url, SHA256), "network")
    (site.root / "incoming" / f"{SHA256}.part").write_bytes(CONTENT + b"more")
    fetched(download_image(server.url, SHA256), site)
    assert server.ranges[-1] == ""


def test_a_part_of_another_address_is_not_gone_on_with(site: Site, server: Unsteady) -> None:
    server.drops = [500_000, 0, 0, 0, 0, 0]
    refused(download_image(server.url, SHA256), "network")
    server.asked.clear()
    fetched(download_image(server.url + "?other", SHA256), site)
    assert server.ranges == [""]


def test_trouble_of_the_server_is_endured(site: Site, server: Unsteady) -> None:
    server.statuses = [503, 429, 200]
    fetched(download_image(server.url, SHA256), site)
    assert len(server.asked) == 3


def test_another_sha256_is_refused_and_nothing_stays(site: Site, server: Unsteady) -> None:
    said = refused(download_image(server.url, "0" * 64), "image_changed")
    assert SHA256 in said
    assert incoming(site) == []


def test_what_is_not_there_is_said_and_nothing_stays(site: Site, server: Unsteady) -> None:
    server.statuses = [404]
    assert "answered 404" in refused(download_image(server.url, SHA256), "source_not_found")
    assert incoming(site) == []


def test_a_file_beyond_the_sites_limit_is_refused(site: Site, server: Unsteady) -> None:
    site.set(payload_limit_bytes=1000)
    refused(download_image(server.url, SHA256), "payload_refused")
    server.says_length = False
    refused(download_image(server.url, SHA256), "payload_refused")
    assert incoming(site) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x.sif",
        "https://127.0.0.1:1/x.sif",
        "https://169.254.169.254/x.sif",
        "file:///etc/passwd",
        "https://user:secret@example.org/x.sif",
        "--help",
    ],
)
def test_what_the_site_does_not_allow_is_not_asked(site: Site, url: str) -> None:
    refused(download_image(url, SHA256), "payload_refused")
    assert not (site.root / "incoming").exists()


@pytest.mark.parametrize("sha256", ["", "latest", "../x", "A" * 64])
def test_a_sum_is_needed(site: Site, server: Unsteady, sha256: str) -> None:
    refused(download_image(server.url, sha256), "illegal_name")


def test_what_was_fetched_and_not_registered_is_not_fetched_again(
    site: Site, server: Unsteady
) -> None:
    fetched(download_image(server.url, SHA256), site)
    fetched(download_image(server.url, SHA256), site)
    assert len(server.asked) == 1


def test_two_at_once_do_not_write_into_each_others_file(site: Site, server: Unsteady) -> None:
    folder = str(site.root / "incoming")
    os.makedirs(folder)
    first = downloads.Download(folder, SHA256, "The image", 10**9)
    handle = os.open(first.part, os.O_RDWR | os.O_CREAT)
    first._lock(handle)
    assert "is being fetched here already" in refused(download_image(server.url, SHA256), "in_use")
    os.close(handle)
    fetched(download_image(server.url, SHA256), site)


# -- from a registry ------------------------------------------------------------------------------


@pytest.fixture
def artifact(server: Unsteady) -> str:
    server.manifest = {"layers": [{"mediaType": SIF_LAYER, "digest": f"sha256:{SHA256}"}]}
    return f"oras://{server.host}/lab/demo:v1"


def test_a_pull_goes_on_where_the_connection_broke(
    site: Site, server: Unsteady, artifact: str
) -> None:
    server.drops = [200_000, 300_000]
    result = fetched(pull_image(artifact, SHA256), site)
    assert result["resumed_at"] == [200_000, 500_000]
    assert result["reference"] == artifact


def test_a_tag_that_moved_is_noticed_before_anything_is_fetched(
    site: Site, server: Unsteady, artifact: str
) -> None:
    refused(pull_image(artifact, "0" * 64), "image_changed")
    assert server.asked == []


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        [],
        {"layers": []},
        {
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": f"sha256:{SHA256}",
                }
            ]
        },
        {"layers": [{"mediaType": SIF_LAYER, "digest": "sha256:../../x"}]},
        {"layers": [{"mediaType": SIF_LAYER, "digest": f"sha256:{SHA256}"}] * 2},
    ],
)
def test_what_is_no_sif_is_refused(
    site: Site, server: Unsteady, artifact: str, manifest: Any
) -> None:
    server.manifest = manifest
    refused(pull_image(artifact), "image_unreadable")
    assert server.asked == []


def test_a_blob_that_is_not_its_digest_is_refused(
    site: Site, server: Unsteady, artifact: str
) -> None:
    server.content = b"something else"
    refused(pull_image(artifact), "image_changed")
    assert incoming(site) == []
