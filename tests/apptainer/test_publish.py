"""One build at several sites: brought there by Transfer, checked by each site's own policy, run there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .calling import called_in
from .conftest import Answer, LocalGlobus
from .test_trust import make_key

NUMBERS = """
def numbers():
    import numpy, sys
    return {"found": [int(numpy.arange(4).sum()), sys.prefix]}
"""


@dataclass
class Sites:
    """A home that signs, and further endpoints of it with policies of their own."""

    globus: LocalGlobus
    endpoints: dict[str, dict[str, Any]]

    def add(self, name: str, **profile: Any) -> dict[str, Any]:
        path = self.globus.folder / f"{name}.json"
        path.write_text(json.dumps(profile))
        answer = self.globus.cli("local", "endpoint", "add", name, "--site", str(path), "--json")
        assert answer.code == 0, answer.errors
        self.endpoints[name] = answer.document
        return answer.document

    def publish(self, container: str, *words: str) -> Answer:
        return self.globus.cli("containers", "publish", container, *words, "--json")

    def root(self, name: str) -> Path:
        return Path(self.endpoints[name]["root"])

    def images(self, name: str) -> list[Path]:
        return sorted((self.root(name) / "images").rglob("*.*"))

    def in_staging(self) -> list[Path]:
        places = [entry["staging"] for entry in self.endpoints.values()]
        return [
            path
            for place in (*places, self.globus.home / "staging")
            for path in Path(place).glob("*")
        ]


@pytest.fixture(scope="module")
def sites(
    start_globus: Callable[..., LocalGlobus], tmp_path_factory: pytest.TempPathFactory
) -> Sites:
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes keys, is not installed")
    folder = tmp_path_factory.mktemp("keys")
    source, delta, other = (make_key(folder, name) for name in ("source", "delta", "other"))
    globus = start_globus(sign_key=source[0], verify_keys=[source[1]], require_signature=True)
    made = Sites(globus, {})
    made.add(
        "delta",
        sign_key=delta[0],
        verify_keys=[source[1], delta[1]],
        require_signature=True,
        allowed_bases=["docker.io/library/python:*"],
    )
    made.add("polaris", verify_keys=[source[1]])
    made.add("aurora")
    made.add("strict", verify_keys=[other[1]], require_signature=True, sign_key=other[0])
    return made


@pytest.fixture(scope="module")
def built(sites: Sites) -> dict[str, Any]:
    spec = {"name": "shared", "base": {"image": "python:3.11-slim"}, "pip": ["numpy"]}
    return sites.globus.built(spec)


@pytest.fixture(scope="module")
def published(sites: Sites, built: dict[str, Any]) -> dict[str, Any]:
    answer = sites.publish("shared", "--to", "delta,polaris", "--to", "aurora")
    assert answer.code == 0, answer.errors + answer.output
    return answer.document


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {delivery["name"]: delivery for delivery in document["deliveries"]}


def test_one_build_is_the_same_container_at_three_sites(
    sites: Sites, built: dict[str, Any], published: dict[str, Any]
) -> None:
    deliveries = by_name(published)
    assert list(deliveries) == ["delta", "polaris", "aurora"]
    for name, delivery in deliveries.items():
        container = delivery["container"]
        assert delivery["ok"]
        assert container["container_id"] == built["container_id"]
        assert Path(container["path"]).read_bytes() == Path(built["path"]).read_bytes()
        assert Path(container["path"]).is_relative_to(sites.root(name))
        assert container["executor"] == {
            "endpoint_id": sites.endpoints[name]["id"],
            "user_endpoint_config": {"container_uri": container["path"]},
        }
        assert delivery["transfer_s"] > 0
        assert delivery["register_s"] > 0
    assert sites.in_staging() == []


@pytest.mark.parametrize("name", ["delta", "polaris", "aurora"])
def test_it_is_verified_there_by_that_sites_policy(
    sites: Sites, published: dict[str, Any], built: dict[str, Any], name: str
) -> None:
    endpoint = sites.endpoints[name]["id"]
    words = ("containers", "verify", "shared", "--json", "--build-endpoint", endpoint)
    for more in ((), ("--only-trust",)):
        answer = sites.globus.cli(*words, *more)
        assert answer.code == 0, answer.output
        trust = answer.document["trust"]
        signs = json.loads(Path(built["path"]).with_suffix(".json").read_text())["signature"]
        assert trust["sealed"] is True
        assert trust["signer"] == (None if name == "aurora" else signs["fingerprint"])
        # the record there is that site's own, under that site's own key where it has one
        assert bool(trust["seal_signer"]) is (name == "delta")
    shown = sites.globus.cli("containers", "show", "shared", "--json", "--build-endpoint", endpoint)
    assert shown.document["record"]["origin"]["container_id"] == built["container_id"]


@pytest.mark.parametrize("name", ["delta", "aurora"])
def test_a_function_runs_there_in_the_image(
    sites: Sites, published: dict[str, Any], name: str
) -> None:
    where = by_name(published)[name]["container"]["executor"]
    image = where["user_endpoint_config"]["container_uri"]
    answer = called_in(sites.globus, where["endpoint_id"], image, NUMBERS, "numbers")
    assert answer["found"] == [6, "/opt/cib/venv"]


def test_a_second_publication_brings_nothing(sites: Sites, published: dict[str, Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in sites.images("delta")}
    # another name is another place in the catalogue, the same name is not; two runs at once share the source
    answer = sites.publish("shared", "--to", "delta,polaris", "--as", "again:v2", "--at-once")
    assert answer.code == 0, answer.output
    for run in answer.document["runs"]:
        (delivery,) = run["deliveries"]
        assert (delivery["ok"], delivery["present"]) == (True, False)
    assert sites.in_staging() == []
    again = sites.publish("shared", "--to", "delta,polaris")
    assert again.code == 0, again.output
    for delivery in again.document["deliveries"]:
        assert delivery["present"] is True
        assert delivery["transfer_s"] is None
    assert {p: p.stat().st_mtime_ns for p in sites.images("delta") if p in before} == before
    run = sites.globus.cli("logs", again.document["run_id"], "--json").document
    states = {entry["details"].get("state_name") for entry in run["entries"]}
    assert "TransferImage" not in states


def test_one_site_that_is_down_and_one_that_refuses_do_not_keep_the_others_from_it(
    sites: Sites, built: dict[str, Any], published: dict[str, Any]
) -> None:
    down = sites.add("down")["id"]
    assert sites.globus.cli("local", "endpoint", "remove", "down").code == 0
    answer = sites.publish("shared", "--to", f"{down},strict,delta", "--as", "shared:again")
    assert answer.code == 1
    deliveries = by_name(answer.document)
    # one that does not answer has its turn last
    assert [(n, d["ok"]) for n, d in deliveries.items()] == [
        ("strict", False),
        ("delta", True),
        (down, False),
    ]
    assert deliveries["strict"]["code"] == "not_trusted"
    assert (
        "no valid signature of a key that this endpoint trusts" in deliveries["strict"]["sentence"]
    )
    assert deliveries[down]["failed_step"] == "expect_container"
    assert "could not be resolved" in deliveries[down]["sentence"]
    assert deliveries["delta"]["container"]["tag"] == "again"
    sentence = answer.document["failure"]["sentence"]
    assert down in sentence
    assert "strict (" in sentence
    assert "it is registered at one destination" in sentence
    assert sites.images("strict") == []
    assert sites.in_staging() == []
    assert not list((sites.root("strict") / "work").glob("*"))


@pytest.fixture
def damaged_copy(sites: Sites, built: dict[str, Any]) -> Iterator[str]:
    """The source's root as a collection has it whose storage lost a byte: what was checked is not what travels."""
    globus = sites.globus
    copy = globus.folder / "copy"
    shutil.copytree(globus.root / "images", copy / "images")
    image = copy / "images" / "shared" / Path(built["path"]).name
    image.chmod(0o644)
    with image.open("r+b") as stream:
        stream.seek(image.stat().st_size // 2)
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))
    added = globus.cli("local", "collection", "add", "copy", str(copy), "--json").document
    path = globus.home / "site.json"
    before = path.read_text()
    root = {"collection_id": added["id"], "collection_path": "/"}
    path.write_text(json.dumps({**json.loads(before), "root_collection": root}))
    yield str(image)
    path.write_text(before)
    shutil.rmtree(copy)


def test_a_byte_that_is_damaged_on_the_way_is_refused(
    sites: Sites, built: dict[str, Any], damaged_copy: str
) -> None:
    sites.add("fresh")
    answer = sites.publish("shared", "--to", "fresh")
    assert answer.code == 1
    (delivery,) = answer.document["deliveries"]
    assert delivery["code"] == "image_changed"
    assert "arrived with the sha256" in delivery["sentence"]
    assert sites.images("fresh") == []
    assert sites.in_staging() == []


def test_a_container_that_is_not_there_is_one_sentence(sites: Sites, built: dict[str, Any]) -> None:
    answer = sites.publish("nothing:v1", "--to", "delta")
    assert answer.code == 1
    assert answer.document["failure"]["sentence"].startswith("No container 'nothing:v1'")
    assert answer.document["deliveries"] == []


def test_a_cancelled_publication_leaves_nothing_in_staging(
    sites: Sites, built: dict[str, Any]
) -> None:
    sites.add("later")
    started = sites.publish("shared", "--to", "later", "--no-wait")
    assert started.code == 0, started.output
    run_id = started.document["run_id"]
    assert sites.globus.cli("cancel", run_id).code == 0
    assert sites.in_staging() == []
