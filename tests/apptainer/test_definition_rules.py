"""What the recipes take for granted about definition files, held against the real Apptainer.

``tests/functions/deffile.py`` reads a definition file by the same rules, and all tests of hostile specs rest on it:
what Apptainer would run or read otherwise, that reader must refuse too.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cib_flows.functions._shared.diagnostics import diagnose
from cib_flows.functions._shared.processes import clean_environment
from cib_flows.functions._shared.recipe import render_text
from cib_flows.functions._shared.spec_check import check_spec
from cib_flows.functions._shared.spec_words import SpecRefused
from cib_flows.functions._shared.tiny_image import write_tiny_archive
from tests.functions.corpus import FINE
from tests.functions.deffile import NotReadable, parse, parse_stages

GOLDENS = Path(__file__).parents[1] / "functions" / "goldens"
NOWHERE = "Bootstrap: localimage\nFrom: /no/such/image.sif\n"
# How far a build from NOWHERE comes whose definition file was read without complaint.
WAS_READ = "failed to retrieve path for /no/such/image.sif"
HOST_MARKER = "made-on-the-host"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The header of a definition file whose base is two megabytes large."""
    archive = tmp_path_factory.mktemp("tiny") / "tiny.tar"
    write_tiny_archive(str(archive))
    return f"Bootstrap: docker-archive\nFrom: {archive}\n"


def build(
    folder: Path, text: str, *options: str, image: str = "x.sif", **variables: str
) -> tuple[int, str]:
    """Exit status and everything printed by ``apptainer build`` of the definition file ``text``."""
    (folder / "x.def").write_text(text)
    done = subprocess.run(
        ["apptainer", "build", *options, image, "x.def"],
        cwd=folder,
        env={**clean_environment({}), "APPTAINER_CACHEDIR": str(folder / "cache"), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def inspected(folder: Path, image: str, what: str) -> str:
    command = ["apptainer", "inspect", f"--{what}", image]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


# what it is, the text behind a header, what Apptainer says
UNREADABLE = [
    ("an indented word with a percent sign", "%post\n    true\n    %foo\n", "invalid section"),
    ("the same in a heredoc", "%post\n    cat <<X\n%d items\nX\n", "invalid section"),
    ("an unknown section", "%bogus\n    x\n", "invalid section(s) specified: bogus"),
    ("a tab behind a section's name", "%post\t\n    true\n", "invalid section"),
    ("a word that is no header", "Foo: x\n%post\n    true\n", "invalid header keyword found"),
    ("a build argument", "%post\n    echo {{ x }}\n", "build var x is not defined"),
    ("a line that is too long", f"%post\n    : {'x' * 70_000}\n", "token too long"),
    ("a section that is too long", "%post\n" + "    : xxxxxxxxxxxxxx\n" * 3500, "token too long"),
]


@pytest.mark.parametrize(
    ("text", "words"), [row[1:] for row in UNREADABLE], ids=[r[0] for r in UNREADABLE]
)
def test_what_apptainer_does_not_read_our_reader_refuses(
    tmp_path: Path, text: str, words: str
) -> None:
    status, said = build(tmp_path, NOWHERE + text)
    assert status == 255
    assert words in said
    with pytest.raises(NotReadable):
        parse_stages(NOWHERE + text)


def test_text_before_the_bootstrap_line_is_no_definition(tmp_path: Path) -> None:
    text = "From: x\nBootstrap: localimage\n"
    assert "no bootstrap specification found" in build(tmp_path, text)[1]
    with pytest.raises(NotReadable):
        parse(text)


# These run where the build runs, not in the image.
ON_THE_HOST = [
    ("setup", f"%setup\n    : > {HOST_MARKER}\n"),
    ("capitals", f"%SETUP\n    : > {HOST_MARKER}\n"),
    ("two percent signs", f"%%setup\n    : > {HOST_MARKER}\n"),
    ("pre", f"%pre\n    : > {HOST_MARKER}\n"),
    ("files by a substitution", f"%files\n    $(>{HOST_MARKER}) /x\n"),
]


@pytest.mark.parametrize(
    "text", [row[1] for row in ON_THE_HOST], ids=[row[0] for row in ON_THE_HOST]
)
def test_what_apptainer_runs_on_the_host_our_reader_refuses(
    tmp_path: Path, tiny: str, text: str
) -> None:
    _, said = build(tmp_path, f"{tiny}\n%post\n    true\n{text}")
    assert (tmp_path / HOST_MARKER).exists(), said
    with pytest.raises(NotReadable):
        parse_stages(f"{tiny}\n%post\n    true\n{text}")


def test_a_second_bootstrap_line_begins_a_stage_wherever_it_stands(
    tmp_path: Path, tiny: str
) -> None:
    status, said = build(
        tmp_path, f"{tiny}\n%help\nBOOTSTRAP: localimage\nFrom: /no/such/image.sif\n"
    )
    assert status == 255
    assert WAS_READ in said, "the second stage decides"
    status, said = build(tmp_path, f"{tiny}\n%help\n    Bootstrap: localimage\n")
    assert status == 0, said
    assert "Bootstrap: localimage" in inspected(tmp_path, "x.sif", "helpfile")


@pytest.mark.parametrize("golden", sorted(GOLDENS.glob("*.def")), ids=lambda path: path.stem)
def test_every_reviewed_recipe_is_read_by_apptainer(tmp_path: Path, golden: Path) -> None:
    assert WAS_READ in build(tmp_path, from_nowhere(golden.read_text()))[1]


def test_every_spec_of_the_corpus_is_read_by_apptainer(tmp_path: Path) -> None:
    """One file for each, with whatever odd but allowed text it holds."""
    for number, spec in enumerate(FINE):
        text = from_nowhere(render_text(check_spec(spec), {}))
        assert WAS_READ in build(tmp_path, text)[1], f"FINE[{number}]: {spec}"


def from_nowhere(recipe: str) -> str:
    """The recipe with bases that do not exist, so that its first build step fails at once."""
    text = re.sub(r"(?m)^Bootstrap: .*$", "Bootstrap: localimage", recipe)
    return re.sub(r"(?m)^From: .*$", "From: /no/such/image.sif", text)


def test_labels_and_help_of_the_base_yield_only_to_force(tmp_path: Path, tiny: str) -> None:
    words = "%labels\n    word {0}\n%help\n    help of {0}\n"
    assert build(tmp_path, tiny + words.format("base"), image="base.sif")[0] == 0
    later = "Bootstrap: localimage\nFrom: base.sif\n" + words.format("later")
    assert build(tmp_path, later)[0] == 0
    assert "word: base" in inspected(tmp_path, "x.sif", "labels")
    assert build(tmp_path, later, "--force")[0] == 0
    assert "word: later" in inspected(tmp_path, "x.sif", "labels")
    assert "help of later" in inspected(tmp_path, "x.sif", "helpfile")


def test_post_stops_at_the_first_failure_and_prints_what_it_runs(tmp_path: Path, tiny: str) -> None:
    """That is why a recipe begins with ``set +x``: a variable's value would stand in the log."""
    status, said = build(
        tmp_path, f"{tiny}\n%post\n    false | true\n    word=secret\n    false\n    echo on\n"
    )
    assert status == 255
    assert "+ word=secret" in said
    assert "\non\n" not in said
    status, said = build(tmp_path, f"{tiny}\n%post\n    set +x -eu\n    word=secret\n")
    assert status == 0
    assert "secret" not in said
    for golden in GOLDENS.glob("*.def"):
        assert "%post\n    set +x -eu\n" in golden.read_text()


def test_what_post_sees_of_the_host(tmp_path: Path, tiny: str) -> None:
    post = (
        f'{tiny}\n%post\n    echo "seen: ${{HOME_OF_CIB-no}} ${{INSIDE-no}} ${{https_proxy-no}}"\n'
        "    echo x > /tmp/cib-left; echo x > /cib-kept\n"
    )
    host = {"HOME_OF_CIB": "yes", "APPTAINERENV_INSIDE": "yes", "https_proxy": "yes"}
    status, said = build(tmp_path, post, **host)
    assert status == 0, said
    assert "seen: no yes yes" in said
    listed = subprocess.run(
        ["apptainer", "--silent", "exec", "--containall", "x.sif", "/bin/sh", "-c", "echo /cib-* /tmp/cib-*"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert listed == "/cib-kept /tmp/cib-*\n"
    Path("/tmp/cib-left").unlink()


def test_a_modules_variable_reaches_post_unless_it_is_scrubbed(
    tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{tiny}\n%post\n    true\n"
    status, said = build(tmp_path, text, APPTAINER_BINDPATH="/usr:/opt/cray/pe")
    assert status == 255
    assert diagnose(said)[0] == "apptainer_unusable"
    assert "/opt/cray/pe" in diagnose(said)[1]
    monkeypatch.setenv("APPTAINER_BINDPATH", "/usr:/opt/cray/pe")
    assert build(tmp_path, text)[0] == 0


def test_a_failed_test_section_leaves_no_image(tmp_path: Path, tiny: str) -> None:
    status, said = build(tmp_path, f"{tiny}\n%test\n    exit 3\n")
    assert status == 255
    assert not (tmp_path / "x.sif").exists()
    assert diagnose(said)[0] == "command_failed"


def test_a_target_that_is_there_is_not_replaced_without_force(tmp_path: Path, tiny: str) -> None:
    (tmp_path / "x.sif").write_text("mine")
    status, said = build(tmp_path, tiny)
    assert status == 255
    assert diagnose(said)[0] == "already_exists"
    assert (tmp_path / "x.sif").read_text() == "mine"


def test_success_without_an_image_is_possible(tmp_path: Path, tiny: str) -> None:
    """Which is why the build step asks ``sif list`` and believes no exit status."""
    status, _ = build(tmp_path, tiny, "--encrypt")
    assert status == 0
    assert not (tmp_path / "x.sif").exists()


def test_an_unknown_agent_is_refused(tmp_path: Path) -> None:
    status, said = build(tmp_path, "Bootstrap: bogus\nFrom: x\n")
    assert status == 255
    assert "invalid build source bogus" in said


def test_a_header_is_cut_at_a_number_sign_and_continued_at_a_backslash(tmp_path: Path) -> None:
    """Neither can stand in a base image's name."""
    assert WAS_READ in build(tmp_path, "Bootstrap: localimage\nFrom: /no/such/image.sif # a\n")[1]
    assert WAS_READ in build(tmp_path, "Bootstrap: localimage\nFrom: /no/such\\\n/image.sif\n")[1]
    for odd in ("a # b", "a \\"):
        with pytest.raises(SpecRefused, match=r"base\.image"):
            check_spec({"name": "x", "base": {"image": odd}})
