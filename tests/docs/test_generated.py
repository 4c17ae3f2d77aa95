"""The parts of the pages that are made from the code are what the code says."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The generator, pointed at a copy of the pages so that no test changes them."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    copy = tmp_path / "docs"
    shutil.copytree(DOCS, copy)
    monkeypatch.setattr(module, "DOCS", copy)
    return module


def test_the_pages_are_up_to_date(generate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    status = generate.main(["--check"])
    said = capsys.readouterr()
    assert (status, said.out + said.err) == (0, "")


def test_a_page_that_is_out_of_date_is_named_and_rewritten(
    generate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    page = generate.DOCS / "errors.md"
    right = page.read_text(encoding="utf-8")
    page.write_text(right.replace("### disk_full", "### disk_half"), encoding="utf-8")
    assert generate.main(["--check"]) == 1
    assert "docs/errors.md is out of date" in capsys.readouterr().out
    assert generate.main([]) == 0
    assert page.read_text(encoding="utf-8") == right


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "  disk_full: ",
            "  disk_half: ",
            "disk_half",
        ),
        ("  tmpdir:", "  tempdir:", "tempdir"),
        ("{name: My Image}", "{name: my-image}", 'refused_specs: "name": "my-image" is accepted'),
    ],
)
def test_meanings_must_fit_the_code(
    generate: ModuleType,
    capsys: pytest.CaptureFixture[str],
    before: str,
    after: str,
    said: str,
) -> None:
    path = generate.DOCS / "meanings.yaml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    assert generate.main(["--check"]) == 1
    assert said in capsys.readouterr().err


def test_a_page_without_its_mark_is_refused(
    generate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    page = generate.DOCS / "spec.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("<!-- begin: fields -->", ""), encoding="utf-8")
    assert generate.main(["--check"]) == 1
    assert "docs/spec.md: the page marks ['refusals']" in capsys.readouterr().err


def test_every_state_and_transition_of_the_flow_is_drawn(generate: ModuleType) -> None:
    states = generate.read_json(generate.FLOW / "definition.json")["States"]
    drawn = generate.flow_graph()
    for name, state in states.items():
        targets = {state.get("Next"), state.get("Default")}
        targets |= {rule["Next"] for rule in state.get("Choices", [])}
        for target in targets - {None}:
            assert any(
                line.split()[0] == name and line.split()[-1] == target
                for line in drawn.splitlines()
                if "-->" in line
            ), f"{name} -> {target}"
        for catcher in state.get("Catch", []):
            assert f"    {name} -.-> {catcher['Next']}" in drawn.splitlines()


def test_sentences_of_the_functions_are_found(generate: ModuleType) -> None:
    page = generate.error_codes()
    # of a step, of a shared module, of the diagnostics table, and of the recipe itself
    for said in (
        "The image is no longer the one that was built.",
        "The payload has a device or pipe: ….",
        "The Python package '…' does not exist on the package index. *Check its spelling in 'pip'.*",
        "The base image has no apt-get, so Debian packages cannot be installed. *Take a base image of",
    ):
        assert said in page
