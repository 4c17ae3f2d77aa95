"""Pinning a base image: what is asked of a registry, and what each of its answers means."""

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from cib_flows.functions._shared.grammars import split_image_reference
from cib_flows.functions._shared.registry import resolve
from cib_flows.functions._shared.results import StepFailed
from tests.functions.conftest import BASE_DIGEST as DIGEST
from tests.functions.conftest import Answer, Server, Site


def pinned(reference: str, site: Site) -> tuple[str, str]:
    return resolve(reference, site.loaded(), "docker")


def test_a_tag_is_pinned_to_the_digest_it_means_now(site: Site, registry: Server) -> None:
    assert pinned("python:3.11-slim", site) == (f"{registry.host}/library/python@{DIGEST}", DIGEST)
    method, path, headers = registry.requests[-1]
    assert (method, path) == ("GET", "/v2/library/python/manifests/3.11-slim")
    assert "application/vnd.oci.image.index.v1+json" in headers["accept"]


def test_no_tag_is_latest_and_a_mirror_may_be_named_itself(site: Site, registry: Server) -> None:
    pinned(f"{registry.host}/group/image", site)
    assert registry.requests[-1][1] == "/v2/group/image/manifests/latest"


def test_a_registry_without_the_header_is_digested_here(site: Site, registry: Server) -> None:
    body = b'{"manifests": []}\xff'
    registry.answer = lambda *_: (200, {}, body)
    assert pinned("debian:12", site)[1] == "sha256:" + hashlib.sha256(body).hexdigest()


def test_a_digest_cannot_be_answered_with_another(site: Site, registry: Server) -> None:
    assert pinned(f"python@{DIGEST}", site)[1] == DIGEST
    with pytest.raises(StepFailed) as refused:
        pinned("python@sha256:" + "b" * 64, site)
    assert refused.value.code == "base_refused"


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "base_not_found", "has no '3.99' of library/python"),
        (401, "registry_denied", "does not exist, or it is private"),
        (403, "registry_denied", "does not exist, or it is private"),
        (429, "registry_rate_limit", "pull limit"),
        (500, "network", "answered 500"),
    ],
)
def test_each_refusal_is_told_in_its_own_sentence(
    site: Site, registry: Server, status: int, code: str, words: str
) -> None:
    registry.answer = lambda *_: (status, {}, b"")
    with pytest.raises(StepFailed) as failed:
        pinned("python:3.99", site)
    assert failed.value.code == code
    assert words in failed.value.message


def private(server: Server, realm: str, token: bytes = b'{"token": "t0k3n"}') -> None:
    def answer(_: str, path: str, headers: dict[str, str]) -> Answer:
        if path.startswith("/token"):
            return 200, {}, token
        if headers.get("authorization") == "Bearer t0k3n":
            return 200, {"Docker-Content-Digest": DIGEST}, b""
        return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="registry.test"'}, b""

    server.answer = answer


def test_an_anonymous_token_is_fetched_when_the_registry_asks_for_one(
    site: Site, registry: Server
) -> None:
    private(registry, f"{registry.url}/token?account=x")
    assert pinned("python:3.11", site)[1] == DIGEST
    path, headers = registry.requests[1][1:]
    assert parse_qs(urlsplit(path).query) == {
        "account": ["x"],
        "service": ["registry.test"],
        "scope": ["repository:library/python:pull"],
    }
    assert "authorization" not in headers


def test_the_sites_password_is_shown_to_its_own_registries_only(
    site: Site, registry: Server, other_web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spec may name any registry, and a registry any place to send the password to."""
    monkeypatch.setenv("APPTAINER_DOCKER_USERNAME", "site")
    monkeypatch.setenv("APPTAINER_DOCKER_PASSWORD", "secret")
    private(registry, f"{registry.url}/token")
    pinned("python:3.11", site)
    expected = "Basic " + base64.b64encode(b"site:secret").decode()
    assert registry.requests[1][2]["authorization"] == expected

    site.set(payload_hosts=[other_web.host])
    private(other_web, f"{other_web.url}/token")
    assert pinned(f"{other_web.host}/evil/image", site)[1] == DIGEST
    assert "Basic" not in json.dumps(other_web.requests)


def test_a_token_place_in_the_inner_network_is_refused(
    site: Site, registry: Server, other_web: Server
) -> None:
    private(registry, f"{other_web.url}/token")
    with pytest.raises(StepFailed) as refused:
        pinned("python:3.11", site)
    assert refused.value.code == "base_refused"
    assert other_web.requests == []


@pytest.mark.parametrize("token", [b"", b"no json", b"[]", b'{"token": "a\\r\\nX: y"}', b"\xff"])
def test_a_broken_token_is_a_failure_with_a_sentence(
    site: Site, registry: Server, token: bytes
) -> None:
    private(registry, f"{registry.url}/token", token)
    with pytest.raises(StepFailed) as failed:
        pinned("python:3.11", site)
    assert failed.value.code in ("network", "registry_denied")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("python", ("docker.io", "library/python", None, None)),
        ("user/image:tag", ("docker.io", "user/image", "tag", None)),
        ("index.docker.io/library/x", ("docker.io", "library/x", None, None)),
        ("docker.io/x", ("docker.io", "library/x", None, None)),
        ("localhost/x", ("localhost", "x", None, None)),
        ("host:5000/x", ("host:5000", "x", None, None)),
        ("ghcr.io/a/b:1@" + DIGEST, ("ghcr.io", "a/b", "1", DIGEST)),
        ("Upper/x", None),
        ("a//b", None),
        ("-a", None),
        ("a:", None),
        ("", None),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(
    reference: str, parts: tuple[str, str, str | None, str | None] | None
) -> None:
    assert split_image_reference(reference) == parts
