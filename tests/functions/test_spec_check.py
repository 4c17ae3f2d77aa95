"""The guard: what it refuses, in which words, and that schema, defaults and flow agree with it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cib_flows.functions._shared.identity import spec_digest
from cib_flows.functions._shared.spec_check import DEFAULTS, FIELDS, check_spec
from cib_flows.functions._shared.spec_words import SpecRefused
from tests.functions.corpus import (
    FINE,
    HOSTILE,
    MINIMAL,
    SLOW,
    UUID,
    checked_or_refused,
    with_,
)

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "flows/build_container/input_schema.json").read_text())
DEFINITION = json.loads((ROOT / "flows/build_container/definition.json").read_text())
schema = jsonschema.Draft7Validator(SCHEMA)


def without_defaults(checked: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in checked.items() if v is not None}


@pytest.mark.parametrize(
    ("field", "spec"), [(f, s) for _, f, s in HOSTILE], ids=[h[0] for h in HOSTILE]
)
def test_a_hostile_spec_is_refused_in_one_sentence_that_names_the_field(
    field: str, spec: Any
) -> None:
    with pytest.raises(SpecRefused) as refused:
        check_spec(spec)
    message = refused.value.message
    assert refused.value.field == field
    assert field in message or field == "" or field.split(".")[0] in message
    assert message.isprintable()
    assert message[0] in "'TUO"
    assert message.endswith(".")
    assert len(message) < 500


@pytest.mark.parametrize("spec", FINE, ids=range(len(FINE)))
def test_a_good_spec_is_accepted_by_the_guard_and_by_the_schema(spec: dict[str, Any]) -> None:
    assert list(schema.iter_errors(spec)) == []
    checked = check_spec(spec)
    assert checked.keys() == FIELDS
    assert list(schema.iter_errors(without_defaults(checked))) == []
    assert check_spec(without_defaults(checked)) == checked, "a checked spec stays as it is"


@pytest.mark.parametrize(
    "spec", [s for _, _, s in HOSTILE if not list(schema.iter_errors(s))], ids=repr
)
def test_what_only_the_guard_refuses_is_about_content(spec: Any) -> None:
    """Types, lengths and counts are the schema's to refuse: the web form then shows it at the field."""
    with pytest.raises(SpecRefused) as refused:
        check_spec(spec)
    assert not re.search(
        r"must be (a string|a list|an object)|at most .* accepted", refused.value.message
    ) or (refused.value.code == "spec_too_large")


def test_slow_patterns_do_not_hang_the_guard() -> None:
    """In a process of its own, since nothing inside this one could stop a pattern that never ends."""
    program = (
        "import json, sys\n"
        "from cib_flows.functions._shared.spec_check import check_spec\n"
        "from cib_flows.functions._shared.spec_words import SpecRefused\n"
        "for field, spec in json.load(sys.stdin):\n"
        "    try: check_spec(spec)\n"
        "    except SpecRefused as refused: assert refused.field == field, (refused.field, field)\n"
        "    else: raise SystemExit(f'{spec} was accepted')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(SLOW),
        text=True,
        capture_output=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"environment": ["A=1"]}, 'such as {"OMP_NUM_THREADS": "4"}, not ["A=1"]'),
        ({"files": {"/etc/motd": "x"}}, 'a list such as [{"path": "/etc/motd", "content": "hello"}]'),
        ({"files": ["/etc/motd"]}, '\'files[0]\' must be an object such as {"path": "/etc/motd"'),
        ({"machine": {"gpu": True}}, 'such as {"kind": "cuda", "version": "12.4"}, not true'),
        ({"apt": ["git curl"]}, "give each an entry of its own"),
        ({"pip": ["git+https://a.org/x.git"]}, 'name the package before its address, as in "x @ https'),
        ({"pip": ["./mine"]}, "'payload.install'"),
        ({"payload": {"git": "https://a.org/x.git@v1"}}, "as 'payload.ref'"),
        ({"environment": {"PATH": "/x:$PATH"}}, '"$PATH" would stay as it is written'),
        ({"mount": ["/x"]}, 'Unknown field "mount" (is "mounts" meant?)'),
        ({"env": {"A": "x"}}, '(is "environment" meant?)'),
        ({"payload": {"dest": "/x"}}, '(is "destination" meant?)'),
    ],
)  # fmt: skip
def test_a_refusal_says_what_would_be_right(fields: dict[str, Any], words: str) -> None:
    assert words in checked_or_refused({**MINIMAL, **fields})[1]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.just(math.nan) | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=6,
)
NESTED = {
    "base": ["bootstrap", "image"],
    "payload": ["url", "git", "ref", "sha256", "destination"],
    "payload_collection": ["id", "path"],
    "verify": ["imports", "commands"],
}
any_field = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.one_of(json_values, st.dictionaries(st.sampled_from(NESTED[name]), json_values))
        if name in NESTED
        else json_values,
    )
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(any_field, min_size=1, max_size=3))
def test_wrong_types_anywhere_are_refused_by_guard_and_schema_alike(
    fields: list[tuple[str, Any]],
) -> None:
    spec = {**MINIMAL, **dict(fields)}
    checked, refusal = checked_or_refused(spec)
    if checked is None:
        assert refusal.endswith(".")
        assert refusal.isprintable()
        return
    assert list(schema.iter_errors(without_defaults(checked))) == []


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_anything_at_all_is_refused_or_accepted_without_another_error(value: Any) -> None:
    with pytest.raises(SpecRefused):
        check_spec(value)


def test_deep_nesting_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SpecRefused):
        check_spec(with_(pip=deep))


def test_every_default_is_the_same_in_schema_guard_and_flow() -> None:
    defaults = {name: p["default"] for name, p in SCHEMA["properties"].items() if "default" in p}
    absent = {
        "payload_collection": None,
        "payload": {},
        "verify": {},
        "build_endpoint": None,
        "run_endpoint": None,
        "locked": None,
    }
    assert {**absent, **defaults} == DEFAULTS
    bootstrap = SCHEMA["properties"]["base"]["properties"]["bootstrap"]
    assert check_spec(MINIMAL)["base"]["bootstrap"] == bootstrap["default"]
    destination = SCHEMA["properties"]["payload"]["properties"]["destination"]
    assert check_spec(MINIMAL)["payload"]["destination"] == destination["default"]


def test_the_flow_hands_on_exactly_what_the_schema_asks_for() -> None:
    state = DEFINITION["States"]["Defaults"]["Parameters"]
    spec = {key.removesuffix(".="): value for key, value in state["spec"].items()}
    assert set(SCHEMA["properties"]) == FIELDS
    assert {*spec, "build_endpoint"} == FIELDS
    for name, expression in spec.items():
        if name in SCHEMA["required"]:
            assert expression == name
        elif name != "run_endpoint":
            assert expression == f"getattr('{name}', default={DEFAULTS[name]!r})"


def test_the_spec_as_the_flow_completes_it_is_accepted() -> None:
    completed = {**DEFAULTS, **MINIMAL, "run_endpoint": UUID}
    del completed["build_endpoint"]
    assert check_spec(completed)["run_endpoint"] == UUID


def test_a_digest_knows_neither_order_nor_defaults_nor_where_it_is_built() -> None:
    plain = spec_digest(check_spec(MINIMAL))
    assert (
        spec_digest(check_spec({**dict(reversed(MINIMAL.items())), "tag": "latest", "pip": []}))
        == plain
    )
    assert (
        spec_digest(check_spec(with_(force=True, build_endpoint=UUID, run_endpoint=UUID))) == plain
    )
    assert spec_digest(check_spec(with_(pip=["numpy"]))) != plain


@pytest.mark.parametrize(
    ("image", "accepted"),
    [
        ("python:3.9", False),
        ("python:3.10-slim", True),
        ("python:3", True),
        ("python:latest", True),
        ("python", True),
        ("docker.io/library/python:3.8-bookworm", False),
        ("someone/cpython:3.8", True),
        ("debian:9", True),
    ],
)
def test_a_base_is_refused_for_its_tag_only_where_the_tag_tells(image: str, accepted: bool) -> None:
    spec = with_(base={"image": image})
    if accepted:
        assert check_spec(spec)["base"]["image"] == image
    else:
        with pytest.raises(SpecRefused) as refused:
            check_spec(spec)
        assert refused.value.code == "python_too_old"
        assert "worker: none" in refused.value.message


@pytest.mark.parametrize(
    "given",
    [
        {"pip": ["x @ https://ada:s3cret@pypi.example.org/x.whl"]},
        {"pip": ["x @ git+https://s3cret@git.example.org/x.git@main"]},
        {"pip": ["x @ https://ada:s3c/ret-s3cret@pypi.example.org/x.whl"]},
        {"pip": ["x @ https://pypi.example.org/x.whl?token=s3cret&x=`"]},
        {"pip_requirements": "--index-url https://ada:s3cret@pypi.example.org/simple"},
        {"pip_requirements": "--extra-index-url https://ada:s3cret@pypi.example.org/simple"},
        {"pip_extra_index_urls": ["https://ada:s3cret@pypi.example.org/simple"]},
        {"pip_extra_index_urls": "https://ada:s3cret@pypi.example.org/simple"},
        {"conda_channels": ["https://ada:s3cret@conda.example.org/channel"]},
        {"conda_channels": ["https://conda.example.org/t/x?api_key=s3cret`"]},
        {"payload": {"url": "https://ada:s3cret@data.example.org/x.tar.gz"}},
        {"payload": {"git": "https://s3cret@git.example.org/x.git"}},
        {"payload": {"url": "https://data.example.org/x?X-Amz-Signature=s3cret`"}},
        {"base": {"image": "docker://ada:s3cret@registry.example.org/x"}},
        {"base": "https://ada:s3cret@registry.example.org/x"},
    ],
)
def test_a_refusal_does_not_show_a_password(given: dict[str, Any]) -> None:
    with pytest.raises(SpecRefused) as refused:
        check_spec({"name": "x", "base": {"image": "python:3.11-slim"}, **given})
    assert "s3cret" not in refused.value.message
    assert "example.org" in refused.value.message
