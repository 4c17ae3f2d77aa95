"""An environment.yml is read as a YAML parser reads it, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cib_flows.functions._shared.environment_yaml import read_environment
from cib_flows.functions._shared.spec_check import check_spec
from cib_flows.functions._shared.spec_words import SpecRefused
from tests.functions.corpus import environment_yml

EXPORTED = """\
name: analysis
channels:
  - conda-forge
  - bioconda
  - nodefaults
dependencies:
  - python=3.11.9=hb806964_0_cpython  # exported
  - "numpy>=1.26,<2"
  - 'samtools'
  - bioconda::bwa
  - pip
  - pip:
    - requests==2.32.0
    - pandas[excel]>=2
prefix: /home/me/envs/analysis
"""


def test_what_conda_exports_becomes_the_specs_own_lists() -> None:
    spec = check_spec({**environment_yml(EXPORTED), "pip": ["rich"]})
    assert spec["conda_channels"] == ["conda-forge", "bioconda"]
    assert spec["conda"] == [
        "python=3.11.9=hb806964_0_cpython",
        "numpy>=1.26,<2",
        "samtools",
        "bioconda::bwa",
        "pip",
    ]
    assert spec["pip"] == ["rich", "requests==2.32.0", "pandas[excel]>=2"]
    assert spec["conda_environment"] == ""


def test_its_channels_stand_behind_those_that_the_spec_names_itself() -> None:
    spec = check_spec({**environment_yml(EXPORTED), "conda_channels": ["mine"]})
    assert spec["conda_channels"] == ["mine", "conda-forge", "bioconda"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dependencies:\n- numpy\n - scipy\n", "line 3' does not stand below the items before it."),
        ("- numpy\n", "line 1' is a list's item, but no list was begun."),
        ("dependencies: numpy\n", 'line 1\' must have a list, not "numpy".'),
        ("packages:\n- numpy\n", 'line 1\' has the unknown key "packages"; '),
        ("dependencies:\n- numpy\n\n- rm -rf /\n", "line 4' must be a conda match spec such as"),
    ],
)
def test_a_refusal_names_the_line(text: str, sentence: str) -> None:
    with pytest.raises(SpecRefused) as refused:
        check_spec(environment_yml(text))
    assert sentence in refused.value.message


def by_yaml(text: str) -> tuple[list[str], list[str], list[str]] | None:
    """What PyYAML makes of the text; None when it is no environment at all."""
    try:
        content: Any = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        return None
    if content in (None, ""):
        content = {}
    if not isinstance(content, dict):
        return None
    channels, items = content.get("channels") or [], content.get("dependencies") or []
    pip = [each for item in items if isinstance(item, dict) for each in item.get("pip") or []]
    return list(channels), [item for item in items if not isinstance(item, dict)], pip


piece = st.sampled_from(
    ["numpy", "a>=1,<2", "'a b'", '"c"', "a: b", "&x", "*x", "!t", "a #b", "#", "[a, b]", "[a, 'b c']",
     "{a: b}", "pip:", "pip: [x, y]", "- a", ">", "|", "a\\", '"a\\n"', "", "x::y", "~", "%a", "@a", "a:", "- "]
)  # fmt: skip
line = st.tuples(
    st.sampled_from(["", " ", "  ", "    ", "\t"]),
    st.sampled_from(["- ", "", "-", "channels:", "dependencies:", "name: ", "- pip:", "# "]),
    piece,
).map("".join)
document = st.lists(line, max_size=6).map("\n".join)
likely = st.lists(
    st.tuples(st.sampled_from(["- ", "  - ", "    - ", "- pip:\n  - "]), piece).map("".join), max_size=4
).map(lambda items: "\n".join(["dependencies:", *items]))  # fmt: skip


@settings(max_examples=800, deadline=None)
@given(st.one_of(document, likely))
def test_what_is_not_refused_means_what_yaml_says_it_means(text: str) -> None:
    try:
        found = read_environment(text, "environment.yml")
    except SpecRefused:
        return
    wanted = by_yaml(text)
    assert wanted is not None, text
    assert [item for _, item in found.channels] == wanted[0]
    assert [item for _, item in found.conda] == wanted[1]
    assert [item for _, item in found.pip] == wanted[2]


def test_json_is_read_too() -> None:
    text = json.dumps({"dependencies": ["numpy", {"pip": ["requests"]}], "channels": ["a"]})
    found = read_environment(text, "environment.yml")
    assert [item for _, item in found.conda] == ["numpy"]
    assert [item for _, item in found.pip] == ["requests"]
