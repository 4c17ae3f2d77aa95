"""A kept environment serves a build only when it is sound and holds nothing that was not asked for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared.files import copy_file
from cib_flows.functions._shared.spec_check import check_spec
from cib_flows.functions._shared.stages import Stage, Stages, ground_of

DAY = 24 * 3600.0


def kept(stages: Stages, tmp_path: Path, requirements: list[str], ground: str = "g") -> Path:
    image = tmp_path / f"{'-'.join(requirements)}.sif"
    content = ("image of " + " ".join(requirements) + ground).ljust(100).encode()
    image.write_bytes(content)
    stage = stages.keep(str(image), hashlib.sha256(content).hexdigest(), ground, requirements)
    assert stage is not None
    return Path(stage.image)


def took(stages: Stages, requirements: list[str], work: str) -> Stage | None:
    found = stages.best("g", requirements)
    return found and stages.take(found, work)


@pytest.fixture
def work(tmp_path: Path) -> str:
    folder = tmp_path / "work"
    folder.mkdir()
    return str(folder)


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    return Stages(str(tmp_path / "root"), 10_000, DAY)


def test_the_largest_part_of_what_is_asked_is_taken(
    stages: Stages, tmp_path: Path, work: str
) -> None:
    kept(stages, tmp_path, ["a"])
    kept(stages, tmp_path, ["a", "b"])
    kept(stages, tmp_path, ["a", "b", "c", "d"])
    found = took(stages, ["a", "b", "c"], work)
    assert found is not None
    assert found.requirements == ["a", "b"]


def test_nothing_that_was_not_asked_for_is_taken(stages: Stages, tmp_path: Path, work: str) -> None:
    kept(stages, tmp_path, ["a", "evil"])
    assert took(stages, ["a"], work) is None
    kept(stages, tmp_path, ["a"], ground="another base")
    assert took(stages, ["a"], work) is None


def test_a_stage_that_was_tampered_with_is_removed(
    stages: Stages, tmp_path: Path, work: str
) -> None:
    image = kept(stages, tmp_path, ["a"])
    with image.open("r+b") as stream:
        stream.write(b"X")
    assert took(stages, ["a"], work) is None
    assert not image.exists()


def test_what_is_written_to_a_taken_stage_does_not_reach_the_kept_one(
    stages: Stages, tmp_path: Path, work: str
) -> None:
    image = kept(stages, tmp_path, ["a"])
    before = image.read_bytes()
    used = took(stages, ["a"], work)
    assert used is not None
    Path(used.image).write_bytes(b"hostile")
    assert image.read_bytes() == before
    assert took(stages, ["a"], work) is not None


def test_an_old_stage_is_not_taken(tmp_path: Path, work: str) -> None:
    stages = Stages(str(tmp_path / "root"), 10_000, -1.0)
    kept(stages, tmp_path, ["a"])
    assert took(stages, ["a"], work) is None


def test_the_longest_unused_go_first_and_one_in_use_stays_readable(
    tmp_path: Path, work: str
) -> None:
    stages = Stages(str(tmp_path / "root"), 250, DAY)
    first = kept(stages, tmp_path, ["a"])
    used = took(stages, ["a"], work)
    second = kept(stages, tmp_path, ["b"])
    os.utime(first.with_suffix(".json"), (1, 1))
    kept(stages, tmp_path, ["c"])
    assert not first.exists()
    assert second.exists()
    assert used is not None
    assert Path(used.image).read_bytes().startswith(b"image of a")


def test_a_damaged_note_is_passed_over(stages: Stages, tmp_path: Path, work: str) -> None:
    image = kept(stages, tmp_path, ["a"])
    image.with_name("broken.json").write_text("{")
    image.with_name("other.json").write_text("[1]")
    assert took(stages, ["a"], work) is not None


def test_no_limit_means_nothing_is_kept(tmp_path: Path) -> None:
    stages = Stages(str(tmp_path / "root"), 0, DAY)
    image = tmp_path / "a.sif"
    image.write_bytes(b"x")
    assert stages.keep(str(image), "0" * 64, "g", ["a"]) is None


def test_an_environment_is_wanted_again_the_second_time_it_is_asked_for(tmp_path: Path) -> None:
    stages = Stages(str(tmp_path / "root"), 10_000, DAY)
    assert not stages.is_wanted_again("g", ["a", "b"])
    assert not stages.is_wanted_again("g", ["a", "c"])
    assert not stages.is_wanted_again("another base", ["a", "b"])
    assert stages.is_wanted_again("g", ["b", "a"])
    for note in (tmp_path / "root" / "cache" / "stages").glob("*.wanted"):
        os.utime(note, (1, 1))
    assert not stages.is_wanted_again("g", ["a", "b"]), "asked for too long ago to count"
    stages.trim()
    assert len(list((tmp_path / "root" / "cache" / "stages").glob("*.wanted"))) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"base": {"digest": "", "resolved": "debian:12"}}, {"base": {"digest": "", "resolved": "ubuntu:24.04"}}),
        ({"spack_builder": "a@sha256:1"}, {"spack_builder": "b@sha256:2"}),
        ({"engine": "apptainer version 1.4.5"}, {"engine": "apptainer version 1.5.3"}),
    ],
    ids=["library", "builder", "engine"],
)  # fmt: skip
def test_an_environment_of_another_ground_is_another(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    spec = check_spec({"name": "x", "base": {"bootstrap": "library", "image": "debian:12"}})
    plan: dict[str, Any] = {
        "worker": {}, "engine": "e", "machine": "m", "base": {"digest": "d", "resolved": "r"},
    }  # fmt: skip
    assert ground_of(spec, {**plan, **one}) != ground_of(spec, {**plan, **other})
    moved = {**plan, "base": {"digest": "d", "resolved": "a mirror's name"}}
    assert ground_of(spec, plan) == ground_of(spec, moved)


def test_a_disk_too_small_for_the_copy_is_named(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"x" * 3_000_000)
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        copy_file(str(tmp_path / "image"), "/dev/full")
    digest = copy_file(str(tmp_path / "image"), str(tmp_path / "copy"))
    assert digest == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert (tmp_path / "copy").read_bytes() == b"x" * 3_000_000
