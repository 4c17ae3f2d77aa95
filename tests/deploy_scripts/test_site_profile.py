from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def site_profile(load_helper: Callable[[str], ModuleType]) -> ModuleType:
    return load_helper("site_profile")


def test_a_plain_machine_needs_no_settings(site_profile: ModuleType) -> None:
    assert site_profile.site_profile({}, {}, None, None) == {"payload_hosts": []}


def test_a_site_with_its_own_certificates_proxy_index_and_mirror(
    site_profile: ModuleType, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_text("")
    environment = {
        "SSL_CERT_FILE": str(tmp_path / "missing.crt"),
        "PIP_CERT": str(bundle),
        "HTTPS_PROXY": "http://proxy.example:3128",
        "no_proxy": "localhost",
    }

    profile = site_profile.site_profile(
        environment,
        {"global.index-url": "https://mirror.example/simple"},
        "/srv/tools",
        "127.0.0.1:5055",
    )

    assert profile == {
        "payload_hosts": [],
        "registry_mirrors": {"docker.io": "127.0.0.1:5055"},
        "ca_bundle": str(bundle),
        "tools": "/srv/tools",
        "pip_index_url": "https://mirror.example/simple",
        "proxies": {"https_proxy": "http://proxy.example:3128", "no_proxy": "localhost"},
    }


def test_pips_own_certificate_setting_counts(site_profile: ModuleType, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_text("")

    profile = site_profile.site_profile({}, {"global.cert": str(bundle)}, None, None)

    assert profile["ca_bundle"] == str(bundle)


def test_the_file_is_for_its_owner_only(
    site_profile: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@proxy.example:3128")
    path = tmp_path / "site.json"
    path.write_text("{}")
    path.chmod(0o644)

    assert site_profile.main([str(path), "--tools", str(tmp_path)]) == 0

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["tools"] == str(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["site.json"]
