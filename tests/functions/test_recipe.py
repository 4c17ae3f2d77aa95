"""Golden recipes, and what no user text can do to one.

To renew the goldens after a meant change: ``CIB_RENEW_GOLDENS=1 pytest tests/functions/test_recipe.py``, then
read the difference as carefully as code.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cib_flows.functions._shared.recipe import render_text, requirements_of
from cib_flows.functions._shared.recipe_shell import PREFIX, quote
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions._shared.spec_check import check_spec
from cib_flows.functions._shared.spec_machine import machine_words
from cib_flows.functions._shared.spec_software import SPACK_BUILDER
from tests.functions.corpus import checked_or_refused
from tests.functions.deffile import parse, parse_stages

GOLDENS = Path(__file__).parent / "goldens"
VERSIONS = {"globus-compute-endpoint": "4.19.0", "parsl": "2026.7.6"}
BASE: dict[str, Any] = {"name": "demo", "base": {"image": "python:3.11-slim"}}
SPECS: dict[str, dict[str, Any]] = {
    "minimal": BASE,
    "pip": {**BASE, "pip": ["pandas[excel]>=2,<4", "numpy ; python_version > '3.9'"]},
    "apt": {**BASE, "apt": ["git", "libopenmpi-dev=4.1.4-3"]},
    "conda": {
        **BASE,
        "conda": ["samtools>=1.19", "bioconda::bwa"],
        "conda_channels": ["conda-forge", "bioconda"],
    },
    "conda_python": {**BASE, "conda": ["python=3.11", "numpy"]},
    "payload": {
        **BASE,
        "payload": {"url": "https://example.org/data.tar.gz", "destination": "/srv/data"},
    },
    "commands": {
        **BASE,
        "commands": ['echo "it\'s {{ here }}" > /etc/greeting', "ldconfig"],
        "environment": {"GREETING": "it's $HOME", "A": ""},
    },
    "worker_none": {**BASE, "worker": "none", "mounts": ["/scratch", "/service/"]},
    "worker_none_pip": {**BASE, "worker": "none", "pip": ["requests"]},
    "files": {
        **BASE,
        "worker": "none",
        "labels": {"org.example.purpose": "it's a test # of {labels}", "B": "%setup"},
        "files": [
            {
                "path": "/usr/local/bin/greet",
                "content": '#!/bin/sh\necho "it\'s $1"\n',
                "executable": True,
            },
            {"path": "/etc/cib/plain.txt", "content": "%setup\n{{ x }}\n\nlast"},
            {"path": "/etc/cib/empty"},
        ],
        "runscript": ["/usr/local/bin/greet", "two words"],
    },
    "requirement_files": {
        **BASE,
        "pip": ["numpy"],
        "pip_requirements": "pandas>=2 # for tables\n--extra-index-url https://a.example.org/simple\n",
        "pip_extra_index_urls": ["https://download.example.org/whl/cu124"],
        "conda_environment": "channels:\n- bioconda\ndependencies:\n- samtools\n- pip:\n  - requests\n",
    },
    "machine": {
        **BASE,
        "machine": {
            "platform": "linux/amd64",
            "microarchitecture": "zen3",
            "container_engine": "apptainer",
            "mpi": {"implementation": "openmpi", "version": "4.1"},
            "gpu": {"kind": "cuda", "version": "12.4"},
        },
    },
    "machine_conda": {
        **BASE,
        "conda": ["python=3.11", "numpy"],
        "machine": {
            "microarchitecture": "x86_64_v3",
            "mpi": {"implementation": "mpich", "version": "4"},
        },
    },
    "spack": {
        **BASE,
        "apt": ["git"],
        "spack": {
            "specs": ["hdf5@1.14+mpi ^openmpi fabrics=ucx,cma", "zlib"],
            "compiler": "gcc@11",
        },
        "machine": {
            "microarchitecture": "zen3",
            "mpi": {"implementation": "openmpi", "version": "4.1"},
        },
    },
    "payload_install": {
        **BASE,
        "pip": ["numpy"],
        "payload": {"git": "https://example.org/x.git", "install": True},
    },
    "everything": {
        "name": "all.of-it",
        "tag": "v1.0",
        "description": "Ünïcode {{ not an argument }} 100 %",
        "base": {"bootstrap": "oras", "image": "registry.example.org/group/base:1"},
        "apt": ["git"],
        "pip": ["requests @ git+https://github.com/psf/requests@v2.32.0"],
        "conda": ["numpy 1.26.*"],
        "payload_collection": {
            "id": "6c54cade-bde5-45c1-bdea-f4bd71dba2cc",
            "path": "/~/my data/",
        },
        "payload": {"sha256": "0" * 64, "destination": "/data"},
        "environment": {"OMP_NUM_THREADS": "4"},
        "mounts": ["/scratch"],
        "commands": ["make -C /data install"],
        "verify": {"imports": ["requests"], "commands": ["true"]},
        "worker": "4.19.0",
        "force": True,
    },
}


def rendered(spec: dict[str, Any], versions: dict[str, str] | None = None) -> str:
    checked = check_spec(spec)
    if versions is None:
        versions = {} if checked["worker"] == "none" else VERSIONS
    return render_text(checked, versions)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_recipe_is_what_was_reviewed(name: str) -> None:
    golden = GOLDENS / f"{name}.def"
    text = rendered(SPECS[name])
    if os.environ.get("CIB_RENEW_GOLDENS"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_golden_belongs_to_a_spec() -> None:
    assert {path.stem for path in GOLDENS.glob("*.def")} == set(SPECS)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_recipe_has_our_sections_and_is_a_valid_shell_script(name: str) -> None:
    *builder, recipe = parse_stages(rendered(SPECS[name]))
    sections = ["labels", "post", "environment", "runscript", "help"]
    if name == "spack":
        assert list(builder[0].sections) == ["post"]
        assert recipe.sections.pop("files").split() == ["/opt/software", "/opt/view"]
        assert builder[0].header.pop("stage") == "spack"
        assert recipe.header.pop("stage") == "final"
    assert list(recipe.sections) == sections
    for stage in (*builder, recipe):
        assert set(stage.header) == {"bootstrap", "from"}
        for section in {"post", "environment", "runscript"} & stage.sections.keys():
            done = subprocess.run(
                ["/bin/sh", "-n"], input=stage.sections[section], text=True, capture_output=True
            )
            assert done.stderr == ""


def test_the_worker_is_pinned_to_the_endpoints_very_versions() -> None:
    spec = check_spec({**BASE, "pip": ["numpy"]})
    assert requirements_of(spec, VERSIONS) == [
        "numpy",
        "globus-compute-endpoint==4.19.0",
        "parsl==2026.7.6",
    ]
    assert requirements_of(check_spec({**BASE, "worker": "none"}), VERSIONS) == []


def test_without_versions_the_recipe_says_who_fills_them_in() -> None:
    text = render_text(check_spec(BASE), None)
    assert "# the build endpoint adds globus-compute-endpoint and parsl" in text


def test_a_pinned_base_takes_the_place_of_the_tag() -> None:
    text = render_text(check_spec(BASE), VERSIONS, "docker.io/library/python@sha256:" + "0" * 64)
    assert parse(text).header["from"] == "docker.io/library/python@sha256:" + "0" * 64


def test_a_recipe_that_apptainer_could_not_read_is_refused() -> None:
    spec = check_spec({**BASE, "commands": ["'" * 8000, "'" * 8000]})
    with pytest.raises(StepFailed) as refused:
        render_text(spec, VERSIONS)
    assert refused.value.code == "recipe_too_large"
    assert "%post section" in refused.value.message


def test_the_runscript_passes_arguments_as_they_are() -> None:
    script = parse(rendered(BASE)).sections["runscript"]
    words = ["printf", "<%s>", "two words", 'it\'s "quoted"', "$HOME *", ""]
    done = subprocess.run(["/bin/sh", "-c", script, "sh", *words], capture_output=True, text=True)
    assert done.stdout == '<two words><it\'s "quoted"><$HOME *><>'


# Text without the characters that every field refuses, with what could do harm made likely.
FRAGMENTS = [
    "{{ x }}", "{{{", "}}", "{{{{ a }}}}", "%setup", "%post", "%", " %files", "bootstrap: docker", "Bootstrap:",
    "$(touch /tmp/x)", "`id`", "${HOME}", "'", '"', "\\", "\\n", ";", "&&", "|", ">", "<", "#", "*", "~", "!",
    "--", "-c", " ", "\t", "é", "\u3000", "\u00a0", "\ufeff", "😀", "EOF", "'\"'\"'", "a", "0",
]  # fmt: skip
hostile_line = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=6)), min_size=1, max_size=10
).map("".join)
hostile_text = st.lists(hostile_line, max_size=4).map("\n".join)


@settings(max_examples=300, deadline=None)
@given(hostile_line)
def test_a_quoted_word_is_the_same_word_to_a_shell_and_no_build_argument(text: str) -> None:
    if "\n" in text or "\x00" in text:
        return
    quoted = quote(text)
    assert shlex.split(quoted) == [text]
    assert "{{" not in quoted
    assert not quoted.startswith("%")


LISTS = (
    "apt", "pip", "conda", "conda_channels", "mounts", "commands", "pip_extra_index_urls", "runscript",
)  # fmt: skip
free_text_specs = st.fixed_dictionaries(
    {"name": st.just("demo"), "base": st.just({"image": "python:3.11-slim"})},
    optional={
        "description": hostile_line,
        "commands": st.lists(hostile_line, min_size=1, max_size=3),
        "environment": st.dictionaries(st.sampled_from("AB"), hostile_line, min_size=1),
        "files": st.lists(
            st.fixed_dictionaries(
                {"path": st.sampled_from(["/a/b", "/c"]), "content": hostile_text},
                optional={"executable": st.booleans()},
            ),
            max_size=3,
        ),
        "labels": st.dictionaries(st.sampled_from("XY"), hostile_line),
        "verify": st.fixed_dictionaries({"commands": st.lists(hostile_line, max_size=2)}),
    },
)
one_hostile_field = st.one_of(
    st.tuples(st.sampled_from(LISTS), st.lists(hostile_line, min_size=1, max_size=2)),
    st.tuples(st.sampled_from(["name", "tag", "description", "worker"]), hostile_line),
    st.tuples(st.just("base"), st.fixed_dictionaries({"image": hostile_line})),
    st.tuples(
        st.just("base"),
        st.fixed_dictionaries(
            {
                "bootstrap": st.sampled_from(["oras", "library", "localimage", "oci-archive"]),
                "image": hostile_line.map("/".__add__),
            }
        ),
    ),
    st.tuples(
        st.sampled_from(["environment", "labels"]),
        st.dictionaries(hostile_line, hostile_line, max_size=2),
    ),
    st.tuples(
        st.just("files"),
        st.lists(
            st.fixed_dictionaries({"path": hostile_line.map("/".__add__), "content": hostile_text}),
            max_size=2,
        ),
    ),
    st.tuples(st.sampled_from(["pip_requirements", "conda_environment"]), hostile_text),
    st.tuples(
        st.just("conda_environment"),
        st.tuples(st.sampled_from(["- ", "- pip:\n  - "]), hostile_line).map(
            lambda item: f"dependencies:\n{item[0]}{item[1]}"
        ),
    ),
    st.tuples(
        st.just("machine"),
        st.fixed_dictionaries(
            {
                "mpi": st.fixed_dictionaries(
                    {"implementation": st.just("openmpi"), "version": hostile_line}
                )
            }
        ),
    ),
    st.tuples(
        st.just("spack"),
        st.fixed_dictionaries(
            {"specs": st.lists(hostile_line.map("a".__add__), min_size=1, max_size=2)},
            optional={
                "builder": hostile_line.map("a".__add__),
                "compiler": hostile_line.map("gcc@1".__add__),
            },
        ),
    ),
    st.tuples(
        st.just("payload"),
        st.fixed_dictionaries(
            {"git": hostile_line.map("https://example.org/".__add__)},
            optional={"ref": hostile_line, "destination": hostile_line.map("/".__add__)},
        ),
    ),
)


def assert_harmless(spec: dict[str, Any]) -> None:
    """Either the spec is refused with a sentence, or its recipe says what the spec says and nothing more."""
    checked, refusal = checked_or_refused(spec)
    if checked is None:
        assert refusal.endswith(".")
        assert refusal.isprintable()
        return
    text = render_text(checked, VERSIONS)
    *builder, recipe = parse_stages(text)
    files = ["files"] if checked["spack"] else []
    assert list(recipe.sections) == [*files, "labels", "post", "environment", "runscript", "help"]
    assert recipe.header == {
        "bootstrap": checked["base"]["bootstrap"],
        "from": checked["base"]["image"],
        **({"stage": "final"} if checked["spack"] else {}),
    }
    assert [list(stage.sections) for stage in builder] == ([["post"]] if checked["spack"] else [])
    for stage in builder:
        assert stage.header["from"] == checked["spack"].get("builder", SPACK_BUILDER)
        (asked,) = read_back(stage.sections["post"], "    printf '%s\\n' ")
        assert json.loads(asked[0])["spack"]["specs"] == checked["spack"]["specs"]
    labels = [line.strip() for line in recipe.sections["labels"].splitlines() if line.strip()]
    assert labels[1:] == [
        *(f"cib-flows.machine.{k} {v}" for k, v in machine_words(checked["machine"]).items()),
        *(f"{key} {value}" for key, value in sorted(checked["labels"].items())),
    ]
    post = recipe.sections["post"]
    assert read_back(post, "    run ") == [[command] for command in checked["commands"]]
    places = ["/opt/cib", *checked["mounts"]]
    if "git" in checked["payload"]:
        places.append(checked["payload"]["destination"])
    assert read_back(post, "    mkdir -p /", "/") == [[place] for place in places]
    assert read_back(post, "    add_index ") == [[url] for url in checked["pip_extra_index_urls"]]
    assert read_back(post, "    } > ") == [[file["path"]] for file in checked["files"]]
    exports = read_back(recipe.sections["environment"], "    export ")
    assert exports[-len(checked["environment"]) or len(exports) :] == [
        [f"{key}={value}"] for key, value in sorted(checked["environment"].items())
    ]
    assert installed(post) == [*checked["pip"], *(f"{n}=={v}" for n, v in sorted(VERSIONS.items()))]


def read_back(section: str, prefix: str, keep: str = "") -> list[list[str]]:
    lines = [line for line in section.split("\n") if line.startswith(prefix)]
    return [shlex.split(keep + line[len(prefix) :]) for line in lines]


def installed(post: str) -> list[str]:
    """What ends up in requirements.txt, read as the shell reads it."""
    written = post.split(" > /opt/cib/requirements.txt\n")[0].split("    printf '%s\\n' ")[-1]
    return shlex.split(written.replace("\\\n", " "))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(free_text_specs)
def test_free_text_stays_where_it_was_put(spec: dict[str, Any]) -> None:
    assert_harmless(spec)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(one_hostile_field)
def test_no_field_can_break_out(field: tuple[str, Any]) -> None:
    assert_harmless({**BASE, field[0]: field[1]})


def run_commands(spec: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """The commands of a recipe as its own script runs them, on this machine: nothing that cleans up goes along."""
    post = parse(render_text(spec, {})).sections["post"]
    script = "".join(line for line in post.splitlines(keepends=True) if "rm -rf" not in line)
    script = script.replace(PREFIX, str(folder))  # what it writes down belongs to the image
    assert not {"rm ", "apt-get ", "mkdir "} & set(
        re.findall(r"^    ([a-z-]+ )", script, re.MULTILINE)
    )
    return subprocess.run(
        ["/bin/sh", "-ex", "-c", script], capture_output=True, text=True, cwd=folder
    )


def test_a_shell_receives_every_command_as_it_was_written(tmp_path: Path) -> None:
    """The commands part of a real recipe, run by a real shell."""
    marker = tmp_path / "marker"
    commands = [
        f"printf '%s|' \"it's\" '{{{{ x }}}}' '{{{{{{' '$(id)' '%setup' '\\n' >> {marker}",
        f"printf '%s|' \"$GREETING\" >> {marker}",
    ]
    spec = check_spec(
        {
            **BASE,
            "worker": "none",
            "commands": commands,
            "environment": {"GREETING": "a  'b' {{{c}}}"},
        }
    )
    done = run_commands(spec, tmp_path)
    assert done.returncode == 0, done.stderr
    assert marker.read_text() == "it's|{{ x }}|{{{|$(id)|%setup|\\n|a  'b' {{{c}}}|"


def test_a_failing_command_ends_the_build_and_is_named(tmp_path: Path) -> None:
    spec = check_spec({**BASE, "worker": "none", "commands": ["true", "(exit 7)", "echo never"]})
    done = run_commands(spec, tmp_path)
    assert done.returncode == 65
    assert "REFUSED: The command exited with status 7: (exit 7)" in done.stderr
    assert "never" not in done.stdout
