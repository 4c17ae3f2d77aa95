"""Files of a collection by HTTPS, and ``containers download``, which takes an image from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
import requests
from click.testing import CliRunner, Result

from cib_flows.cli import main

from ..functions.test_catalogue import published
from .conftest import LocalGlobus

CONTENT = "an image " * 50_000


@pytest.fixture
def home(own_globus: Callable[..., LocalGlobus]) -> LocalGlobus:
    return own_globus()


def served(globus: LocalGlobus) -> str:
    return str(globus.transfer.get_endpoint(globus.staging_id)["https_server"])


def header(globus: LocalGlobus, scope: Any) -> dict[str, str]:
    server = globus.staging_id
    globus.app.add_scope_requirements({server: [scope]})
    return {"Authorization": str(globus.app.get_authorizer(server).get_authorization_header())}


def https_scope(globus: LocalGlobus) -> Any:
    return globus_sdk.scopes.GCSCollectionScopes(globus.staging_id).https


def test_a_file_is_read_whole_or_from_somewhere_on(home: LocalGlobus) -> None:
    (home.home.staging_dir / "a b.txt").write_text("0123456789")
    token = header(home, https_scope(home))
    url = f"{served(home)}/a%20b.txt"
    whole = requests.get(url, headers=token, timeout=10)
    assert (whole.status_code, whole.text) == (200, "0123456789")
    tag = whole.headers["ETag"]
    part = requests.get(url, headers={**token, "Range": "bytes=4-", "If-Range": tag}, timeout=10)
    assert (part.status_code, part.text) == (206, "456789")
    other = {**token, "Range": "bytes=4-", "If-Range": '"another"'}
    assert requests.get(url, headers=other, timeout=10).status_code == 200


def test_who_lacks_the_collections_scope_reads_nothing(home: LocalGlobus) -> None:
    (home.home.staging_dir / "x").write_text("secret")
    url = f"{served(home)}/x"
    assert requests.get(url, timeout=10).status_code == 401
    transfer = home.app.get_authorizer("transfer.api.globus.org").get_authorization_header()
    answer = requests.get(url, headers={"Authorization": str(transfer)}, timeout=10)
    assert answer.status_code == 403
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "path", ["..%2f..%2fclient.json", "%2e%2e/client.json", "link", "none", ""]
)
def test_no_path_leads_out_of_the_collection(home: LocalGlobus, path: str) -> None:
    (home.home.staging_dir / "link").symlink_to(home.home.client_path)
    token = header(home, https_scope(home))
    answer = requests.get(f"{served(home)}/{path}", headers=token, timeout=10)
    assert answer.status_code in (401, 403, 404)
    assert "secret" not in answer.text


# -- containers download --------------------------------------------------------------------------


def registered(globus: LocalGlobus) -> dict[str, Any]:
    return published(Path(globus.home.site()["root"]), CONTENT, "v1")


@pytest.fixture
def download(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def call(globus: LocalGlobus, *words: str) -> Result:
        for name, text in globus.environment.items():
            monkeypatch.setenv(name, text)
        command = ["containers", "download", *words, "--json", "--home", str(globus.home.path)]
        if not (globus.home.path / "deployment.json").exists():
            deployed = CliRunner().invoke(main, ["deploy", "--home", str(globus.home.path)])
            assert deployed.exit_code == 0, deployed.output
        return CliRunner().invoke(main, command)

    return call


def test_an_image_is_saved_and_compared(
    home: LocalGlobus, download: Callable[..., Result], tmp_path: Path
) -> None:
    record = registered(home)
    target = tmp_path / "demo.sif"
    answer = download(home, "demo:v1", str(target))
    assert answer.exit_code == 0, answer.output
    document = json.loads(answer.stdout)
    assert document["container_id"] == record["container_id"]
    assert hashlib.sha256(target.read_bytes()).hexdigest() == document["sha256"] == record["sha256"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["demo.sif"]
    assert list(home.home.staging_dir.iterdir()) == []
    again = download(home, "demo:v1", str(target))
    assert (again.exit_code, json.loads(again.stdout)["error"]["message"]) == (
        1,
        f"{target} exists.",
    )
    assert download(home, "demo:v1", str(target), "--force").exit_code == 0


def test_it_goes_on_with_what_an_earlier_call_left(
    home: LocalGlobus, download: Callable[..., Result], tmp_path: Path
) -> None:
    record = registered(home)
    target = tmp_path / "demo.sif"
    half = len(CONTENT) // 2
    # the file's tag follows from its time and size, and its place differs with each call
    stat = Path(record["path"]).stat()
    tag = hashlib.md5(f"{stat.st_mtime}-{stat.st_size}".encode(), usedforsecurity=False).hexdigest()
    (tmp_path / f"{record['sha256']}.part").write_text(CONTENT[:half])
    said = {"source": f"sha256:{record['sha256']}", "validator": f'"{tag}"', "bytes": len(CONTENT)}
    (tmp_path / f"{record['sha256']}.part.json").write_text(json.dumps(said))
    answer = download(home, "demo:v1", str(target))
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["resumed_at"] == [half]
    assert target.read_text() == CONTENT


def test_a_service_that_drops_connections_is_endured(
    own_globus: Callable[..., LocalGlobus], download: Callable[..., Result], tmp_path: Path
) -> None:
    globus = own_globus("unruly", faults="drop@/https=0.4,seed=1")
    registered(globus)
    target = tmp_path / "demo.sif"
    answer = download(globus, "demo:v1", str(target))
    assert answer.exit_code == 0, answer.output
    assert target.read_text() == CONTENT


def test_what_is_not_there_is_one_sentence(
    home: LocalGlobus, download: Callable[..., Result], tmp_path: Path
) -> None:
    answer = download(home, "demo:none", str(tmp_path / "x.sif"))
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)["error"]["code"] == "container_not_found"
    assert not (tmp_path / "x.sif").exists()
