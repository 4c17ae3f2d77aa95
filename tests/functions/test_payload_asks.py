"""What a payload's own files ask for: read as repo2docker does, checked as a spec is, and lent to the build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared.payload_asks import (
    ASKED_NOTHING,
    asked_of,
    lend_asked,
    payload_asks,
)
from cib_flows.functions._shared.results import StepFailed


def payload(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def asks(root: Path, files: dict[str, str]) -> dict[str, Any]:
    return payload_asks(str(payload(root, files)))


def refusal(root: Path, files: dict[str, str]) -> str:
    with pytest.raises(StepFailed) as refused:
        asks(root, files)
    assert refused.value.code == "payload_refused"
    return refused.value.message


def test_a_payload_without_such_files_asks_for_nothing(tmp_path: Path) -> None:
    assert asks(tmp_path, {"data.csv": "1,2\n"}) == ASKED_NOTHING


def test_all_files_together_make_one_environment(tmp_path: Path) -> None:
    found = asks(
        tmp_path,
        {
            "apt.txt": "# compilers\ngcc g++\nlibhdf5-dev=1.10.8+repack1-1\n",
            "environment.yml": "channels: [bioconda]\ndependencies:\n- samtools\n- pip:\n  - -r requirements.txt\n",
            "requirements.txt": "numpy>=1.26\n-r more/extra.txt\n--extra-index-url https://a.example.org/simple\n",
            "more/extra.txt": "pandas\n-r extra.txt\n",
            "pyproject.toml": "[project]\nname = 'x'\n",
            "postBuild": "#!/bin/sh\n",
            "start": "#!/bin/sh\n",
        },
    )
    assert found == {
        "apt": ["gcc", "g++", "libhdf5-dev=1.10.8+repack1-1"],
        "channels": ["bioconda"],
        "conda": ["samtools"],
        "indexes": ["https://a.example.org/simple"],
        "pip": ["numpy>=1.26", "pandas"],
        "project": True,
        "post_build": "postBuild",
        "start": "start",
    }


@pytest.mark.parametrize("folder", ["binder", ".binder"])
def test_a_binder_folder_counts_alone(tmp_path: Path, folder: str) -> None:
    files = {f"{folder}/requirements.txt": "numpy\n", f"{folder}/postBuild": "", "apt.txt": "git\n"}
    found = asks(tmp_path, {**files, "setup.py": ""})
    assert found["pip"] == ["numpy"]
    assert found["apt"] == []
    assert found["post_build"] == f"{folder}/postBuild"
    assert found["project"] is False


@pytest.mark.parametrize(
    ("files", "is_project"),
    [
        ({"setup.py": ""}, True),
        ({"pyproject.toml": "[build-system]\nrequires = []\n"}, True),
        ({"pyproject.toml": "[tool.ruff]\nline-length = 100\n"}, False),
        ({"requirements.txt": "-e .\n"}, True),
        ({"src/setup.py": ""}, False),
    ],
)
def test_a_python_project_is_told_from_settings(
    tmp_path: Path, files: dict[str, str], is_project: bool
) -> None:
    assert asks(tmp_path, files)["project"] is is_project


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"apt.txt": "git\n-o APT::Get=1\n"}, "'apt.txt, line 2' must be a Debian package"),
        ({"apt.txt": "$(id)\n"}, "'apt.txt, line 1'"),
        ({"requirements.txt": "a\n--find-links /etc\n"}, "'requirements.txt, line 2'"),
        ({"requirements.txt": "-e git+https://a.org/x\n"}, "'requirements.txt, line 1'"),
        ({"requirements.txt": "-r ../../etc/passwd\n"}, "must be a file of the payload"),
        ({"requirements.txt": "-r /etc/passwd\n"}, "must include a file of the payload"),
        ({"requirements.txt": "-r gone.txt\n"}, "'gone.txt' is included but not in the payload"),
        ({"requirements.txt": "a\n" * 9000}, "'requirements.txt' is longer than"),
        ({"requirements.txt": "\n".join(f"a{n}" for n in range(501))}, "ask for 501 packages"),
        ({"environment.yml": "dependencies:\n- a; id\n"}, "'environment.yml, line 2'"),
        ({"environment.yaml": "variables:\n  A: b\n"}, "'environment.yaml, line 1'"),
    ],
)
def test_what_a_spec_may_not_ask_for_a_payload_may_not_either(
    tmp_path: Path, files: dict[str, str], words: str
) -> None:
    message = refusal(tmp_path, files)
    assert message.startswith("The payload asks for what a spec may not: ")
    assert words in message


def test_a_link_is_not_followed_out_of_the_payload(tmp_path: Path) -> None:
    secret = payload(tmp_path / "elsewhere", {"requirements.txt": "secret-name\n"})
    root = payload(tmp_path / "payload", {"setup.cfg": ""})
    (root / "requirements.txt").symlink_to(secret / "requirements.txt")
    (root / "postBuild").symlink_to("/bin/true")
    (root / "binder").symlink_to(secret)
    assert payload_asks(str(root)) == ASKED_NOTHING


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    chain = {f"r{n}.txt": f"-r r{n + 1}.txt\n" for n in range(40)}
    assert "one included file too many" in refusal(
        tmp_path, {**chain, "requirements.txt": "-r r0.txt\n"}
    )


def test_what_is_lent_stands_there_word_by_word(tmp_path: Path) -> None:
    plan = {"asked": {"conda": ["python=3.11", "numpy 1.26.*"], "project": True}}
    lend_asked(asked_of(plan), str(tmp_path / "asked"))
    lent = {path.name: path.read_text() for path in (tmp_path / "asked").iterdir()}
    assert lent == {
        "conda": "python=3.11\nnumpy 1.26.*\n",
        "project": ".\n",
        "brings-python": "yes\n",
    }
