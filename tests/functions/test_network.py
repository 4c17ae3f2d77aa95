"""What may be fetched on behalf of a spec, and that it is fetched from where it was allowed."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared.git import resolve_ref
from cib_flows.functions._shared.grammars import https_host
from cib_flows.functions._shared.network import _is_public, open_url
from cib_flows.functions._shared.results import StepFailed
from tests.functions.conftest import Server, Site


def fetch(url: str, site: Site, **options: Any) -> bytes:
    with open_url(url, site.loaded(), "payload_refused", "The payload", **options) as answer:
        return answer.read()


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://0.0.0.0/",
        "https://[fe80::1]/",
        "https://[fec0::1]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[64:ff9b:1::a9fe:a9fe]/",
        "https://[2002:7f00:1::1]/",
        "https://[2002:a9fe:a9fe::1]/",
        "https://224.0.0.1/",
        "http://example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://user@example.org/",
    ],
)
def test_only_public_https_may_be_fetched(url: str, site: Site) -> None:
    with pytest.raises(StepFailed) as refused:
        fetch(url, site)
    assert refused.value.code == "payload_refused"
    assert refused.value.message.startswith("The payload ")


@pytest.mark.parametrize("address", ["8.8.8.8", "2620:fe::9", "64:ff9b::808:808"])
def test_a_public_address_stays_public_behind_a_gateway(address: str) -> None:
    assert _is_public(address)


def test_a_host_that_the_site_lists_may_be_fetched_over_http(site: Site, web: Server) -> None:
    web.answer = lambda *_: (200, {}, b"content")
    assert fetch(f"{web.url}/x", site) == b"content"


def test_a_redirect_to_an_inner_address_is_refused_before_it_is_asked(
    site: Site, web: Server, other_web: Server
) -> None:
    web.answer = lambda *_: (302, {"Location": f"{other_web.url}/metadata"}, b"")
    with pytest.raises(StepFailed) as refused:
        fetch(f"{web.url}/x", site)
    assert refused.value.code == "payload_refused"
    assert other_web.requests == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.org/", "//127.0.0.1:1/"])
def test_a_redirect_to_anything_but_https_is_refused(site: Site, web: Server, target: str) -> None:
    web.answer = lambda *_: (302, {"Location": target}, b"")
    with pytest.raises(StepFailed) as refused:
        fetch(f"{web.url}/x", site)
    assert refused.value.code == "payload_refused"


def test_redirects_end(site: Site, web: Server) -> None:
    web.answer = lambda *_: (302, {"Location": "/again"}, b"")
    with pytest.raises(StepFailed, match="redirected more than"):
        fetch(f"{web.url}/x", site)
    assert len(web.requests) == 10


def test_a_token_stays_with_the_server_it_was_meant_for(
    site: Site, web: Server, other_web: Server
) -> None:
    """Another port of the same host is another server."""
    site.set(payload_hosts=[web.host, other_web.host])
    web.answer = lambda _, path, __: (
        (302, {"Location": "/here"}, b"")
        if path == "/x"
        else (307, {"Location": f"{other_web.url}/there"}, b"")
    )
    fetch(f"{web.url}/x", site, headers={"Authorization": "Bearer secret", "Accept": "a/b"})
    assert [headers.get("authorization") for _, _, headers in web.requests] == ["Bearer secret"] * 2
    (_, _, headers), *_ = other_web.requests
    assert "authorization" not in headers
    assert headers["accept"] == "a/b"


def test_an_error_status_is_for_the_caller(site: Site, web: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        fetch(f"{web.url}/x", site)
    assert error.value.code == 404
    error.value.close()


def test_a_silent_port_is_a_network_failure(site: Site) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        site.set(payload_hosts=[host])
        with pytest.raises(StepFailed) as failed:
            fetch(f"http://{host}/", site)
    assert failed.value.code == "network"
    assert "127.0.0.1" in failed.value.message


def test_an_unknown_host_is_a_network_failure(site: Site) -> None:
    with pytest.raises(StepFailed) as failed:
        fetch("https://nowhere.invalid/", site)
    assert failed.value.code == "network"
    assert "nowhere.invalid" in failed.value.message


def test_a_missing_certificate_file_is_the_sites_fault(site: Site, web: Server) -> None:
    site.set(ca_bundle="/nonexistent/ca.crt")
    with pytest.raises(StepFailed) as failed:
        fetch(f"{web.url}/", site)
    assert failed.value.code == "site_invalid"
    assert "/nonexistent/ca.crt" in failed.value.message


def test_a_name_that_changes_its_address_after_the_check_is_not_asked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is looked up, an inner server when it is connected to."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=rebinding.test",
            "-addext", "subjectAltName=DNS:rebinding.test", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    received = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, context.wrap_socket(connection, server_side=True) as secure:
                received.append(secure.recv(1000))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        lookups = iter(["93.184.216.34"])

        def resolve(host: str, wanted: Any, *_: Any, **__: Any) -> list[Any]:
            address = next(lookups, "127.0.0.1")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, wanted))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        site.set(ca_bundle=str(certificate))
        with pytest.raises(StepFailed, match="not a public address"):
            fetch(f"https://rebinding.test:{port}/", site)
        thread.join()
    assert received == [b""]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://example.org/a?b#c", "example.org"),
        ("https://EXAMPLE.org:8443", "example.org"),
        ("http://[2001:db8::1]:80/", "2001:db8::1"),
        ("https://a_b-c.example.org./", "a_b-c.example.org."),
        ("https://" + "a" * 64 + ".org/", None),
        ("https://a..org/", None),
        ("https://-a.org/", None),
        ("https://exämple.org/", None),
        ("https://example.org:0/", None),
        ("https://example.org /", None),
        ("https://:443/", None),
        ("javascript:alert(1)", None),
        ("", None),
    ],
)
def test_the_host_of_an_address(url: str, host: str | None) -> None:
    assert https_host(url) == host


def test_git_asks_the_address_that_was_checked_and_no_name_server(
    site: Site, web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody but this process knows the name, so git can only have been told where it leads."""
    port = int(web.url.rsplit(":", 1)[1])
    commit = "a" * 40

    def resolve(host: str, wanted: Any, *_: Any, **__: Any) -> list[Any]:
        assert host == "repository.test"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", wanted))]

    def answer(_: str, path: str, __: Any) -> tuple[int, dict[str, str], bytes]:
        if path.endswith("/HEAD"):
            return 200, {}, b"ref: refs/heads/main\n"
        return 200, {"Content-Type": "text/plain"}, f"{commit}\trefs/heads/main\n".encode()

    web.answer = answer
    site.set(payload_hosts=["repository.test"])
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", resolve)
        url = f"http://repository.test:{port}/x.git"
        assert resolve_ref(url, "main", site.loaded(), lambda: False) == commit
        site.set(payload_hosts=[])
        with pytest.raises(StepFailed, match="not a public address"):
            resolve_ref(url.replace("http:", "https:"), "main", site.loaded(), lambda: False)
