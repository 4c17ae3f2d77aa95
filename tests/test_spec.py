"""A container spec as a person writes it: YAML, JSON, and the older tool's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cib_flows import ContainerSpec
from cib_flows.errors import SpecError
from cib_flows.spec import input_schema
from tests.functions.corpus import FINE, HOSTILE, MINIMAL

OLDER = {
    "image_file_name": "Pandas_Image",
    "base_image_type": "docker",
    "base_image": "python:3.11-slim",
    "payload_url": "https://github.com/ncsa/example.git",
    "pip_packages": ["pandas"],
    "conda_packages": None,
    "apt_packages": ["git"],
}


def sentence(text: str) -> str:
    with pytest.raises(SpecError) as refused:
        ContainerSpec.from_text(text, "spec.yaml")
    assert "\n" not in refused.value.message
    assert refused.value.message.endswith(".")
    assert refused.value.exit_code == 2
    return refused.value.message


def test_a_yaml_file_and_a_json_file_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "name: demo\nbase:\n  image: python:3.11-slim\npip: [pandas]\n"
    )
    spec = {**MINIMAL, "pip": ["pandas"]}
    (tmp_path / "a.json").write_text(json.dumps(spec, indent="\t"))
    first, second = (ContainerSpec.from_file(tmp_path / name) for name in ("a.yaml", "a.json"))
    assert first == second == ContainerSpec.from_dict(spec)
    assert first.digest == second.digest
    assert (first.name, first.tag) == ("demo", "latest")


def test_json_is_read_as_json() -> None:
    text = (
        '{"name": "demo",\t"base": {"image": "python:3.11"}, "description": "\\ud83d\\ude00 \\/"}'
    )
    assert ContainerSpec.from_text(text).to_dict()["description"] == "😀 /"
    assert "'name' stands twice" in sentence('{"name": "a", "name": "b"}')
    assert ContainerSpec.from_text("{name: demo, base: {image: x}}").name == "demo"


def test_numbers_dates_and_words_are_read_as_they_stand() -> None:
    spec = ContainerSpec.from_text(
        "name: demo\ntag: 3.10\nbase: {image: python:3.11}\nforce: true\nrun_endpoint: ~\nmounts:\n"
        "environment: {THREADS: 4, WHEN: 2024-01-01, FLAG: yes, TIME: 12:30, EMPTY: ''}\n"
    )
    assert spec.tag == "3.10"
    assert spec.to_dict()["force"] is True
    assert spec.to_dict()["environment"] == {
        "THREADS": "4", "WHEN": "2024-01-01", "FLAG": "yes", "TIME": "12:30", "EMPTY": "",
    }  # fmt: skip


@pytest.mark.parametrize("spec", FINE, ids=range(len(FINE)))
def test_what_is_sent_is_what_the_service_accepts_and_says_the_same(spec: dict[str, Any]) -> None:
    made = ContainerSpec.from_dict(spec)
    sent = made.to_dict()
    assert list(jsonschema.Draft7Validator(input_schema()).iter_errors(sent)) == []
    assert ContainerSpec.from_dict(sent) == made
    assert ContainerSpec.from_dict(made.complete()).digest == made.digest


def test_to_dict_is_a_copy_without_the_defaults() -> None:
    spec = ContainerSpec.from_dict(
        {**MINIMAL, "tag": "latest", "pip": [], "payload": {}, "verify": {}}
    )
    assert spec.to_dict() == {
        **MINIMAL,
        "base": {"bootstrap": "docker", "image": "python:3.11-slim"},
    }
    spec.to_dict()["base"]["image"] = "other"
    assert spec.to_dict()["base"]["image"] == "python:3.11-slim"


@pytest.mark.parametrize(
    ("field", "spec"), [(f, s) for _, f, s in HOSTILE], ids=[h[0] for h in HOSTILE]
)
def test_a_refusal_names_its_field(field: str, spec: Any) -> None:
    if not isinstance(spec, dict):
        return
    with pytest.raises(SpecError) as refused:
        ContainerSpec.from_dict(spec)
    assert refused.value.field == field
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nname: b\n", "in line 2: the key 'name' stands twice"),
        ("name: [", "is not valid YAML or JSON in line 1"),
        ("", "must hold fields such as 'name' and 'base', not None"),
        ("- a\n", "must hold fields"),
        ("just text\n", "must hold fields"),
        ("name: a\n---\nname: b\n", "is not valid YAML"),
        ("name: !!python/object/apply:os.system [id]\n", "is not valid YAML"),
        ("name: !!int x\n", "its own tag does not fit"),
        ("name: &a [*a]\n", "is not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("name: a\x00b", "is not valid YAML"),
        ("a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{n}: &{n} [" + ",".join([f"*{p}"] * 9) + "]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
        ), "repeats itself too often"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_spec_is_told_in_one_sentence(text: str, words: str) -> None:
    assert words in sentence(text)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path, words in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "binary", "UTF-8"),
    ):
        with pytest.raises(SpecError, match=words):
            ContainerSpec.from_file(path)


def test_the_older_tools_seven_fields_are_understood() -> None:
    assert ContainerSpec.from_dict(OLDER).to_dict() == {
        "name": "pandas_image",
        "base": {"bootstrap": "docker", "image": "python:3.11-slim"},
        "pip": ["pandas"],
        "apt": ["git"],
        "payload": {"git": "https://github.com/ncsa/example.git", "destination": "/example"},
    }
    small = {"image_file_name": "x.sif", "base_image": "python:3.11"}
    assert ContainerSpec.from_dict(small).name == "x"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "x"}, "does not go with custom-image-builder's field"),
        ({"image_file_name": None}, "'image_file_name' is missing"),
        ({"base_image": 5}, "'base_image' is missing or not a string"),
        ({"base_image_type": ["docker"]}, "'base_image_type' must be a string"),
        ({"pip_packages": "pandas"}, "'pip_packages' must be a list, such as ['pandas']"),
        ({"payload_url": ["x"]}, "'payload_url' must be a string"),
        ({"payload_url": "https://[x"}, "'payload_url' is not an address"),
        ({"base_image": "python:3.8"}, "has Python 3.8"),
        ({"pip_packages": ["pandas;rm -rf /"]}, "'pip[0]' must be a requirement"),
        ({5: "x"}, "does not go with"),
    ],
)
def test_the_older_words_are_checked_alike(fields: dict[Any, Any], words: str) -> None:
    with pytest.raises(SpecError) as refused:
        ContainerSpec.from_dict({**OLDER, **fields})
    assert words in refused.value.message


def test_an_example_is_a_spec() -> None:
    examples = sorted((Path(__file__).parents[1] / "examples").glob("*.yaml"))
    assert examples
    for path in examples:
        ContainerSpec.from_file(path)


def test_files_that_people_have_become_the_lists_of_the_spec() -> None:
    spec = ContainerSpec.from_text(
        "name: demo\n"
        "base: {image: 'python:3.11-slim'}\n"
        "pip: [numpy]\n"
        "pip_requirements: |\n"
        "  pandas>=2  # tables\n"
        "  numpy\n"
        "conda_environment: |\n"
        "  channels: [bioconda]\n"
        "  dependencies:\n"
        "    - samtools\n"
    )
    assert spec.to_dict() == {
        "name": "demo",
        "base": {"bootstrap": "docker", "image": "python:3.11-slim"},
        "pip": ["numpy", "pandas>=2"],
        "conda": ["samtools"],
        "conda_channels": ["bioconda"],
    }
    assert spec.digest == ContainerSpec.from_dict(spec.to_dict()).digest
