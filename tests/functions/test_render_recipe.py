"""The first step: what it pins, writes and answers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cib_flows.functions._shared.site import SITE_DEFAULTS, SITE_KEYS
from cib_flows.functions.render_recipe import render_recipe
from tests.functions.conftest import BASE_DIGEST, Run, Server, Site
from tests.functions.corpus import HOSTILE

Start = Callable[..., Run]


def test_a_spec_becomes_a_recipe_with_its_base_pinned(start: Start, registry: Server) -> None:
    run = start(description="d", tag="v1")
    recipe = (run.folder / "image.def").read_text()
    assert f"From: {registry.host}/library/debian@{BASE_DIGEST}\n" in recipe
    assert run.recipe_sha256 == hashlib.sha256(recipe.encode()).hexdigest()
    assert (run.rendered["name"], run.rendered["tag"]) == ("demo", "v1")
    assert (run.rendered["payload_kind"], run.rendered["staging"]) == ("none", None)
    assert (run.rendered["cached"], run.rendered["container_id"]) == (False, None)
    assert run.rendered["run_dir"] == str(run.folder)
    spec = json.loads((run.folder / "spec.json").read_text())
    assert spec["description"] == "d"


def test_the_build_digest_follows_everything_the_image_follows_from(
    start: Start, registry: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(**fields: object) -> object:
        return start(**fields).rendered["build_digest"]

    plain = digest()
    assert digest(tag="other", force=True) == plain
    assert digest(commands=["true"]) != plain
    assert digest(name="other") != plain, "the recipe's labels hold the name"
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert digest() != plain
    monkeypatch.undo()


def test_a_refused_spec_leaves_nothing_on_the_endpoint(site: Site, run_id: str) -> None:
    for _, _, spec in HOSTILE[:20]:
        result = render_recipe(spec, run_id)
        assert result["ok"] is False
        assert result["error"]["code"] in ("spec_invalid", "python_too_old", "spec_too_large")
        assert result["error"]["message"].endswith(".")
    assert os.listdir(site.root) == []


def test_a_missing_base_is_told_before_anything_is_built(
    site: Site, registry: Server, run_id: str
) -> None:
    result = render_recipe({"name": "demo", "base": {"image": "python:missing"}}, run_id)
    assert result["error"]["code"] == "base_not_found"
    assert "docker://python:missing does not exist" in result["error"]["message"]


def test_the_work_area_is_private_and_the_run_folder_is_not(start: Start) -> None:
    run = start()
    assert run.work.stat().st_mode & 0o777 == 0o700
    assert run.folder.stat().st_mode & 0o777 == 0o755


def test_the_worker_of_the_endpoint_is_pinned(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"globus-compute-endpoint": "4.19.0", "parsl": "2026.7.6"}
    monkeypatch.setattr("importlib.metadata.version", lambda name: versions[name])
    for worker, version in (("endpoint", "4.19.0"), ("4.18.0", "4.18.0")):
        recipe = (start(worker=worker).folder / "image.def").read_text()
        pins = set(re.findall(r"(?:globus-compute-endpoint|parsl)==\S+", recipe))
        assert pins == {f"globus-compute-endpoint=={version}", "parsl==2026.7.6"}


def test_an_endpoint_that_cannot_tell_its_version_says_so(
    site: Site, registry: Server, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    def unknown(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", unknown)
    result = render_recipe({"name": "demo", "base": {"image": "debian:12"}}, run_id)
    assert "cannot tell its own version of globus-compute-endpoint" in result["error"]["message"]


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("{ no json", "cannot be read"),
        ("[]", "must be a JSON object"),
        ('{"rot": "/x"}', "unknown key 'rot'"),
        ('{"root": 5}', "wrong value for 'root'"),
        ('{"payload_hosts": [1]}', "wrong value for 'payload_hosts'"),
        ('{"staging": {"path": "/x"}}', "wrong value for 'staging'"),
        ('{"proxies": {"https": 1}}', "wrong value for 'proxies'"),
        (
            '{"build_time_limit_s": true}',
            "'build_time_limit_s': it must be a number above 0, not true",
        ),
        ('{"build_time_limit_s": 0}', "it must be a number above 0, not 0"),
        ('{"verify_time_limit_s": NaN}', "it must be a number above 0, not NaN"),
        ('{"most_builds": 0}', "it must be a whole number above 0 or null, not 0"),
        ('{"stage_limit_bytes": -1}', "it must be a whole number from 0 on, not -1"),
        ('{"fakeroot": "yes"}', "it must be one of auto, always, "),
        ('{"proxies": {"http": "http://me:s3cret@p:1", "no": 1}}', "http://***@p:1"),
    ],
)
def test_a_broken_site_profile_is_the_administrators_to_mend(
    site: Site, run_id: str, profile: str, words: str
) -> None:
    site.path.write_text(profile)
    result = render_recipe(
        {"name": "demo", "base": {"image": "debian:12"}, "worker": "none"}, run_id
    )
    assert result["error"]["code"] == "site_invalid"
    assert words in result["error"]["message"]
    assert str(site.path) in result["error"]["message"]


@pytest.mark.parametrize("root", ["", "containers", "$NO_SUCH_VARIABLE/containers"])
def test_a_root_that_is_nowhere_is_the_administrators_to_mend(
    site: Site, run_id: str, root: str
) -> None:
    site.set(root=root)
    result = render_recipe({"name": "demo", "base": {"image": "debian:12"}}, run_id)
    assert result["error"]["code"] == "site_invalid"
    assert "'root' must be an absolute path" in result["error"]["message"]
    assert root in result["error"]["message"]


def test_a_root_that_may_not_be_written_is_told(
    site: Site, registry: Server, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: str, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.makedirs", forbidden)
    result = render_recipe(
        {"name": "demo", "base": {"image": "debian:12"}, "worker": "none"}, run_id
    )
    assert result["error"]["code"] == "site_invalid"
    assert str(site.root) in result["error"]["message"]


def test_two_runs_of_one_spec_do_not_meet(start: Start) -> None:
    first, second = start(), start()
    assert first.recipe_sha256 == second.recipe_sha256
    assert first.folder != second.folder
    assert Path(first.rendered["recipe_path"]).exists()


def test_a_library_in_the_inner_network_is_not_asked(site: Site) -> None:
    """Apptainer takes the first of four parts as a host."""
    image = "169.254.169.254/entity/collection/image"
    spec = {"name": "demo", "base": {"bootstrap": "library", "image": image}, "worker": "none"}
    result = render_recipe(spec, str(uuid.uuid4()))
    assert result["error"]["code"] == "base_refused"
    assert "not a public address" in result["error"]["message"]


def test_every_key_of_a_site_profile_has_a_default_that_fits() -> None:
    assert SITE_DEFAULTS.keys() == SITE_KEYS.keys()
    for key, types in SITE_KEYS.items():
        assert isinstance(SITE_DEFAULTS[key], types), key
