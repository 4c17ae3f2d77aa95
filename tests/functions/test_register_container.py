"""From a proved image to a container that everyone finds: the catalogue, and its readers."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared.catalogue import Catalogue, container_id_of
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions.list_containers import list_containers
from cib_flows.functions.register_container import register_container
from cib_flows.functions.render_recipe import render_recipe
from cib_flows.functions.verify_image import verify_image
from tests.functions.conftest import Apptainer, Run, Site

Built = Callable[..., tuple[Run, str]]
ENDPOINT = "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b01"
OTHER = "6f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b02"


@pytest.fixture
def proved(built: Built, apptainer: Apptainer) -> Callable[..., tuple[Run, dict[str, str]]]:
    """A run up to its registration; ``image`` is the content that the build leaves."""

    def make(image: str = "SIF one", **fields: Any) -> tuple[Run, dict[str, str]]:
        apptainer.control(image=image)
        run, sha256 = built(**{"name": "demo", **fields})
        result = verify_image(run.id, sha256)
        return run, {"sif_sha256": sha256, "verification_sha256": result["verification_sha256"]}

    return make


Proved = Callable[..., tuple[Run, dict[str, str]]]


def registered(made: tuple[Run, dict[str, str]]) -> dict[str, Any]:
    result = register_container(made[0].id, ENDPOINT, **made[1])  # type: ignore[arg-type]
    assert result["ok"] is True, result
    return result


def listed(**arguments: Any) -> Any:
    result = list_containers(**arguments)
    assert result["ok"] is True, result
    return result


def test_an_image_is_published_under_its_content_with_a_record_beside_it(
    proved: Proved, site: Site
) -> None:
    run, proofs = proved(pip=[], description="Ünïcode", tag="v1")
    result = registered((run, proofs))
    sha256 = hashlib.sha256(b"SIF one").hexdigest()
    image = site.root / "images" / "demo" / f"{sha256}.sif"
    assert result["path"] == str(image)
    assert result["sha256"] == sha256
    assert result["container_id"] == container_id_of(sha256)
    assert (result["name"], result["tag"], result["bytes"], result["cached"]) == (
        "demo",
        "v1",
        7,
        False,
    )
    assert result["executor"] == {
        "endpoint_id": ENDPOINT,
        "user_endpoint_config": {"container_uri": str(image)},
    }
    assert image.read_text() == "SIF one"
    assert stat.S_IMODE(image.stat().st_mode) == 0o444
    record = json.loads(Path(result["record_path"]).read_text())
    assert stat.S_IMODE(Path(result["record_path"]).stat().st_mode) == 0o444
    assert record["spec"]["description"] == "Ünïcode"
    assert record["recipe"].startswith("Bootstrap: docker\nFrom: 127.0.0.1")
    assert record["base"]["digest"] == "sha256:" + "a" * 64
    assert record["verification"]["sif_sha256"] == sha256
    assert record["run_id"] == run.id
    assert not run.work.exists()
    assert run.folder.exists()


def test_the_container_id_is_a_public_contract() -> None:
    assert container_id_of("0" * 64) == "9933b56b-df5a-5049-8911-d19819efad08"


def test_the_run_endpoint_of_the_spec_goes_into_the_executor(proved: Proved) -> None:
    result = registered(proved(run_endpoint=OTHER))
    assert result["executor"]["endpoint_id"] == OTHER


@pytest.mark.parametrize("what", ["image", "verification", "other image", "no image"])
def test_what_was_not_proved_is_not_registered(proved: Proved, site: Site, what: str) -> None:
    run, proofs = proved()
    if what == "image":
        (run.work / "image.sif").write_text("SIF evil")
    elif what == "no image":
        (run.work / "image.sif").unlink()
    elif what == "verification":
        path = run.folder / "verification.json"
        path.write_text(path.read_text().replace("3.", "4.") + " ")
    else:
        (run.work / "image.sif").write_text("SIF evil")
        proofs["sif_sha256"] = hashlib.sha256(b"SIF evil").hexdigest()
    result = register_container(run.id, ENDPOINT, **proofs)  # type: ignore[arg-type]
    assert result["error"]["code"] == "image_changed"
    assert not (site.root / "images").exists()
    assert listed()["containers"] == []


def test_publishing_the_same_image_twice_keeps_the_first(proved: Proved) -> None:
    first = registered(proved())
    before = Path(first["record_path"]).read_text()
    second = registered(proved(force=True))
    assert second["container_id"] == first["container_id"]
    assert Path(first["record_path"]).read_text() == before
    assert listed()["total"] == 1


def test_an_identical_spec_is_answered_by_the_container_that_is_there(
    proved: Proved, start: Callable[..., Run]
) -> None:
    first = registered(proved())
    run = start(tag="second")
    assert run.rendered["cached"] is True
    assert run.rendered["container_id"] == first["container_id"]
    again = register_container(run.id, ENDPOINT, container_id=run.rendered["container_id"])
    assert (again["cached"], again["tag"], again["path"]) == (True, "second", first["path"])
    assert sorted(listed()["containers"][0]["tags"]) == ["latest", "second"]
    assert start(force=True).rendered["cached"] is False
    assert start(commands=["true"]).rendered["cached"] is False


def test_a_container_that_vanished_meanwhile_is_told(
    proved: Proved, start: Callable[..., Run]
) -> None:
    first = registered(proved())
    run = start()
    Path(first["path"]).unlink()
    result = register_container(run.id, ENDPOINT, container_id=run.rendered["container_id"])
    assert result["error"]["code"] == "container_not_found"
    assert start().rendered["cached"] is False


def test_a_tag_moves_and_the_older_container_stays(proved: Proved) -> None:
    first = registered(proved("SIF one"))
    second = registered(proved("SIF two", commands=["true"]))
    containers = {c["container_id"]: c for c in listed()["containers"]}
    assert containers[first["container_id"]]["tags"] == []
    assert containers[second["container_id"]]["tags"] == ["latest"]
    assert listed(reference="demo")["container"]["container_id"] == second["container_id"]
    assert listed(reference="demo:latest")["container"]["container_id"] == second["container_id"]


def test_containers_are_found_by_name_tag_id_and_its_beginning(proved: Proved) -> None:
    made = registered(proved(tag="v1", name="a.b_c-d"))
    for reference in ("a.b_c-d:v1", made["container_id"], made["container_id"][:8]):
        shown = listed(reference=reference)["container"]
        assert shown["container_id"] == made["container_id"]
        assert shown["tags"] == ["v1"]
        assert shown["executor"] == made["executor"]
        assert "recipe" not in shown


@pytest.mark.parametrize(
    "reference", ["a.b", "demo:other", "", "00000000", "../../etc/passwd", "demo:../x", "😀"]
)
def test_an_unknown_reference_is_told(proved: Proved, reference: str) -> None:
    registered(proved())
    result = list_containers(reference)
    assert result["error"]["code"] == "container_not_found"


def test_a_known_name_without_that_tag_is_told_its_tags(proved: Proved) -> None:
    registered(proved(tag="v1"))
    assert list_containers("demo:v2")["error"]["hint"] == "Tags of demo are v1."


def test_an_ambiguous_beginning_is_told(site: Site) -> None:
    for number in range(2):
        write_record(
            site, f"{number}" * 64, container_id=f"aaaaaaaa-0000-0000-0000-00000000000{number}"
        )
    result = list_containers("aaaaaaaa")
    assert "the beginning of 2 container ids" in result["error"]["message"]


def write_record(site: Site, sha256: str, **fields: Any) -> Path:
    folder = site.root / "images" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{sha256}.sif").write_text("SIF")
    record = {
        "container_id": container_id_of(sha256),
        "name": "demo",
        "path": str(folder / f"{sha256}.sif"),
        "sha256": sha256,
        "bytes": 3,
        "created_at": "2026-01-01T00:00:00+00:00",
        **fields,
    }
    path = folder / f"{sha256}.json"
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))
    return path


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{ half a rec"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"container_id": "x"}'),
        lambda path: path.write_text(path.read_text().replace('"bytes": 3', '"bytes": "3"')),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("/nonexistent")),
    ],
)
def test_a_record_that_cannot_be_read_is_passed_over(
    site: Site, spoil: Callable[[Path], object]
) -> None:
    write_record(site, "1" * 64)
    spoil(write_record(site, "2" * 64))
    result = listed()
    assert [c["sha256"] for c in result["containers"]] == ["1" * 64]
    assert result["total"] == 1


def test_a_death_between_image_and_record_leaves_a_catalogue_that_works(
    proved: Proved, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = registered(proved("SIF one"))

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    run, proofs = proved("SIF two", commands=["true"])
    with monkeypatch.context() as dying:
        dying.setattr("cib_flows.functions._shared.catalogue.write_json", die)
        with pytest.raises(KeyboardInterrupt):
            register_container(run.id, ENDPOINT, **proofs)  # type: ignore[arg-type]
    assert (site.root / "images/demo" / f"{proofs['sif_sha256']}.sif").exists()
    assert [c["container_id"] for c in listed()["containers"]] == [older["container_id"]]
    assert listed(reference="demo")["container"]["container_id"] == older["container_id"]
    os.utime(run.folder / "heartbeat", (1, 1))  # whoever waits for a dead run's image stops waiting
    again = registered(proved("SIF two", commands=["true"]))
    assert again["cached"] is False
    assert listed(reference="demo")["container"]["container_id"] == again["container_id"]


def test_a_page_follows_a_page(site: Site) -> None:
    for number in range(30):
        write_record(site, f"{number:064d}", created_at=f"2026-01-01T00:00:{number:02d}+00:00")
    seen: list[str] = []
    while len(seen) < listed(offset=len(seen))["total"]:
        seen += [c["sha256"] for c in listed(offset=len(seen), limit=100)["containers"]]
    assert seen == [f"{number:064d}" for number in reversed(range(30))]
    assert listed(offset=1000)["containers"] == []
    assert len(listed(limit=0)["containers"]) == 1


def test_an_empty_root_lists_nothing(site: Site) -> None:
    found = listed()
    assert found.pop("elapsed_s") >= 0
    assert found == {
        "ok": True,
        "step": "list_containers",
        "total": 0,
        "total_bytes": 0,
        "containers": [],
    }


def test_two_publishers_of_one_image_agree(site: Site, tmp_path: Path) -> None:
    catalogue = Catalogue(str(site.root))
    sha256 = hashlib.sha256(b"SIF").hexdigest()
    record = {"name": "demo", "sha256": sha256, "container_id": container_id_of(sha256), "by": 0}
    for number in range(2):
        sif = site.root / f"{number}.sif"
        sif.write_bytes(b"SIF")
        catalogue.publish(str(sif), {**record, "by": number})
        assert not sif.exists()
    assert json.loads(Path(catalogue.record_path("demo", sha256)).read_text())["by"] == 0


def test_a_reader_never_sees_half_a_tag(site: Site) -> None:
    catalogue = Catalogue(str(site.root))
    record = json.loads(write_record(site, "1" * 64).read_text())
    catalogue.tag("demo", "latest", record, "now")
    place = site.root / "tags" / "demo"
    (place / ".latest.json.0123").write_text("{ half")
    assert list(catalogue.tags_of("demo")) == ["latest"]
    (place / "other.json").write_text("{}")
    assert list(catalogue.tags_of("demo")) == ["latest"]


def test_file_bases_are_read_below_the_image_root_only(
    site: Site, proved: Proved, tmp_path: Path, run_id: str
) -> None:
    made = registered(proved())
    spec = {"name": "next", "worker": "none"}
    own = render_recipe(
        {**spec, "base": {"bootstrap": "localimage", "image": made["path"]}}, run_id
    )
    assert own["ok"] is True
    secret = tmp_path / "secret.sif"
    secret.write_text("x")
    link = site.root / "images" / "link.sif"
    link.symlink_to(secret)
    for image, code in (
        (str(secret), "base_refused"),
        (str(link), "base_refused"),
        ("/etc/passwd", "base_refused"),
        (str(site.root / "images" / "missing.sif"), "base_not_found"),
        (str(site.root / "images" / "demo"), "base_not_found"),
    ):
        result = render_recipe(
            {**spec, "base": {"bootstrap": "localimage", "image": image}}, run_id
        )
        assert result["error"]["code"] == code, image


def test_a_reference_that_is_no_beginning_raises_nothing_odd(site: Site) -> None:
    write_record(site, "1" * 64)
    with pytest.raises(StepFailed):
        Catalogue(str(site.root)).find("-" * 6)
    assert sorted(os.listdir(site.root)) == ["images", "index.json"]
