"""What a lock lists, what a build is lent of it, and which locks are not accepted from outside."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cib_flows.functions._shared.lock import (
    check_lock,
    lent_lock,
    lock_differences,
    locked_base,
    make_lock,
)
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions._shared.spec_check import check_spec
from cib_flows.functions.build_image import build_image
from cib_flows.functions.container_lock import container_lock
from cib_flows.functions.register_container import register_container
from cib_flows.functions.render_recipe import render_recipe
from cib_flows.functions.verify_image import verify_image
from tests.functions.conftest import Apptainer, Run, Site
from tests.functions.test_verify_image import probe_answer

ENDPOINT = "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b01"
HASH = "sha256:" + "a" * 64
PIP = [
    {"name": "numpy", "version": "2.1.0", "hashes": [HASH], "in_base": False},
    {"name": "pip", "version": "26.3", "hashes": [], "in_base": False},
    {"name": "six", "version": "1.0", "hashes": [], "in_base": True},
]
CONDA = [
    {
        "name": "samtools",
        "version": "1.19",
        "build": "h50ea8bc_0",
        "channel": "conda-forge",
        "subdir": "linux-64",
        "sha256": "b" * 64,
        "url": "https://conda.anaconda.org/conda-forge/linux-64/samtools-1.19-h50ea8bc_0.conda",
    }
]
DEBIAN = [{"name": "git", "version": "1:2.39.5-0", "architecture": "amd64", "sha256": None}]
PLAN: dict[str, Any] = {
    "payload": {"kind": "none"},
    "payload_digest": "",
    "base": {"resolved": "mirror/library/debian@" + HASH, "digest": HASH},
    "worker": {"parsl": "2026.7.6"},
    "engine": "apptainer version 1.4.5",
    "machine": "x86_64",
}
VERIFICATION = {"sif_sha256": "c" * 64, "squashfs_sha256": None, "python": "3.11.2"}
SPEC = check_spec({"name": "demo", "base": {"image": "debian:12-slim"}, "force": True})


def lock_of(**inventory: Any) -> dict[str, Any]:
    found = {"debian": DEBIAN, "pip": PIP, "conda": CONDA, **inventory}
    return copy.deepcopy(make_lock(PLAN, SPEC, VERIFICATION, found))


def test_a_lock_lists_every_package_and_says_what_is_not_known() -> None:
    lock = check_lock(json.loads(json.dumps(lock_of())))
    assert [e["name"] for e in lock["pip"]] == ["numpy", "pip", "six"]
    assert lock["conda"][0]["channel"] == "https://conda.anaconda.org/conda-forge"
    assert "force" not in lock["spec"]
    assert any("1 of 1 Debian packages have no sha256" in told for told in lock["unknown"])
    assert any("1 of 2 Python packages have no hash" in told for told in lock["unknown"])


def test_a_build_is_lent_exactly_what_it_shall_install() -> None:
    lent = lent_lock(lock_of())
    assert lent["preferences"] == "Package: git\nPin: version 1:2.39.5-0\nPin-Priority: 1001\n"
    assert lent["hashed"] == f"numpy==2.1.0 \\\n    --hash={HASH}\n"
    # what the base has comes with the base
    assert lent["plain"] == "pip==26.3\n"
    assert lent["conda"].splitlines() == [
        "-c",
        "https://conda.anaconda.org/conda-forge",
        "samtools ==1.19 h50ea8bc_0",
    ]


def test_a_package_from_git_is_installed_from_its_commit() -> None:
    url = "git+https://github.com/psf/requests@" + "d" * 40
    entry = {"name": "requests", "version": "2.32.0", "hashes": [], "in_base": False, "url": url}
    assert lent_lock(lock_of(pip=[entry]))["plain"] == f"requests @ {url}\n"
    moved = {**PLAN, "payload": {"kind": "git", "commit": "e" * 40}}
    lock = make_lock(moved, SPEC, VERIFICATION, {"debian": None, "pip": None, "conda": None})
    assert lock["spec"]["payload"]["ref"] == "e" * 40


def test_the_base_is_asked_for_by_its_digest() -> None:
    assert locked_base(SPEC, lock_of())["base"]["image"] == f"docker.io/library/debian@{HASH}"


def test_what_an_image_lists_is_taken_only_where_it_is_well_formed() -> None:
    odd = [
        {"name": "x; rm -rf /", "version": "1"},
        {"name": "y", "version": "1\n-r /etc/passwd"},
        {"name": "z", "version": "1", "hashes": ["sha256:zz", 3], "url": "file:///etc"},
        {"name": 3, "version": None},
    ]
    lock = lock_of(pip=odd, conda=[{"name": "a b", "version": "1", "build": "0"}, {}])
    assert [(e["name"], e["hashes"]) for e in lock["pip"]] == [("z", [])]
    assert "url" not in lock["pip"][0]
    assert lock["conda"] == []


BROKEN: list[Callable[[dict[str, Any]], Any]] = [
    lambda lock: lock.update(lock_version=2),
    lambda lock: lock.pop("spec"),
    lambda lock: lock["base"].update(digest="sha256:1; true"),
    lambda lock: lock["worker"].update(parsl="1 --pre"),
    lambda lock: lock["debian"][0].update(version="1\nPackage: *"),
    lambda lock: lock.update(debian={"git": "1"}),
    lambda lock: lock["pip"][0].update(name="-r /etc/passwd"),
    lambda lock: lock["pip"][0].update(hashes=["sha256:1 --index-url=https://example.org"]),
    lambda lock: lock["pip"][0].update(url="file:///etc/passwd"),
    lambda lock: lock["conda"][0].update(build="0 --file=/etc/passwd"),
    lambda lock: lock["conda"][0].update(channel="file:///srv"),
    lambda lock: lock.update(filling="x" * 5_000_000),
]


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_lock_whose_words_could_reach_a_shell_is_refused(
    spoil: Callable[[dict[str, Any]], Any], site: Site
) -> None:
    lock = lock_of()
    spoil(lock)
    result = container_lock(lock=lock)
    assert result["error"]["code"] == "lock_invalid", result
    assert not (site.root / "locks").exists()


@given(st.text(max_size=60), st.sampled_from(["name", "version", "url"]))
def test_no_text_in_a_lock_starts_a_line_or_an_option_of_its_own(text: str, field: str) -> None:
    lock = lock_of(pip=[{"name": "a", "version": "1", "hashes": [], "in_base": False}])
    lock["pip"][0][field] = text
    try:
        lines = lent_lock(check_lock(lock))["plain"].splitlines()
    except StepFailed:
        return  # most texts are refused
    assert len(lines) == 1
    assert lines[0][0].isalnum()


def test_differences_are_told_in_words() -> None:
    other = copy.deepcopy(lock_of())
    other["pip"][0]["version"] = "2.2.0"
    other["conda"] = []
    assert lock_differences(lock_of(), other) == [
        "pip numpy (2.1.0 became 2.2.0)",
        "conda samtools (1.19=h50ea8bc_0 became absent)",
    ]
    assert lock_differences(lock_of(), lock_of()) == []


def answer(version: str = "2.1.0") -> dict[str, Any]:
    pip = [{**PIP[0], "version": version}]
    return probe_answer(packages={"numpy": version}, pip=pip)


def register(run: Run | str, sha256: str) -> dict[str, Any]:
    run_id = run if isinstance(run, str) else run.id
    proved = verify_image(run_id, sha256)
    assert proved["ok"], proved
    made = register_container(run_id, ENDPOINT, proved["sif_sha256"], proved["verification_sha256"])
    assert made["ok"], made
    return made


def test_a_lock_stands_beside_the_record_and_is_found_by_the_containers_name(
    built: Callable[..., tuple[Run, str]], apptainer: Apptainer
) -> None:
    apptainer.control(image="SIF one", answers=[answer()])
    made = register(*built(pip=["numpy"]))
    record = json.loads(Path(made["record_path"]).read_text())
    path = Path(record["lock"]["path"])
    assert path == Path(made["path"]).with_suffix(".lock.json")
    shown = container_lock(reference="demo:latest")
    assert shown["lock"] == json.loads(path.read_text())
    assert shown["lock_sha256"] == record["lock"]["sha256"]
    path.chmod(0o644)
    path.write_text(path.read_text().replace("numpy", "nunpy"))
    assert container_lock(reference="demo")["error"]["code"] == "lock_invalid"
    assert container_lock(reference="0" * 64)["error"]["code"] == "lock_not_found"
    assert container_lock(reference="nothing")["error"]["code"] == "container_not_found"


def test_a_build_from_a_lock_is_refused_unless_it_holds_what_the_lock_lists(
    built: Callable[..., tuple[Run, str]], apptainer: Apptainer, run_id: str, site: Site
) -> None:
    apptainer.control(image="SIF one", answers=[answer()])
    made = register(*built(pip=["numpy"]))
    lock = container_lock(reference="demo")
    spec = {**lock["lock"]["spec"], "locked": made["container_id"]}
    rendered = render_recipe(spec, run_id)
    assert rendered["cached"] is False
    assert made["container_id"] in Path(rendered["recipe_path"]).read_text()

    apptainer.control(image="SIF two", answers=[answer("2.2.0")])
    image = build_image(run_id, rendered["recipe_sha256"])
    error = verify_image(run_id, image["sif_sha256"])["error"]
    assert error["code"] == "lock_mismatch"
    assert "numpy (2.1.0 became 2.2.0)" in error["message"]
    apptainer.control(image="SIF two", answers=[answer()])
    register(run_id, image["sif_sha256"])


def test_a_lock_from_elsewhere_is_kept_under_its_sha256(site: Site, run_id: str) -> None:
    kept = container_lock(lock=lock_of())
    assert kept["ok"], kept
    assert container_lock(lock=lock_of())["lock_sha256"] == kept["lock_sha256"]
    assert container_lock(reference=kept["lock_sha256"])["lock"] == lock_of()
