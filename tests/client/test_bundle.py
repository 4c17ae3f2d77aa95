"""A function's bundle: one text that stands alone, the same every time, or a refusal that says
why.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from cib_flows.bundle import (
    BundleError,
    bundle_function,
    bundle_program,
    function_names,
    image_check,
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


GREET = '''"""Says hello.

Twice \\\\ if "asked".
"""

from __future__ import annotations

import json
import os.path
from dataclasses import dataclass

from ._shared.names import LOUD, capital
from ._shared.words import Word

__all__ = ["greet"]

# how often
TIMES = 2


@dataclass
class Greeting:
    word: Word
    times: int = TIMES


def greet(name: str) -> str:
    import sys

    del sys
    greeting = Greeting(Word(capital(name)))
    return json.dumps([greeting.word.text + LOUD] * greeting.times) + os.path.sep
'''
NAMES = '''"""Names of people."""
import json
from pathlib import Path, PurePath as Pure

from .words import Word

LOUD = "!"

def capital(name: str) -> str:
    assert json and Path and Pure
    return Word(name).text.title()
'''
WORDS = """from __future__ import annotations
from dataclasses import dataclass
import os


@dataclass
class Word:
    text: str | None
"""


@pytest.fixture
def greeter(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        {"greet.py": GREET, "_shared/names.py": NAMES, "_shared/words.py": WORDS},
    )


def test_a_bundle_runs_in_a_bare_python_without_a_name(greeter: Path, tmp_path: Path) -> None:
    bundle = bundle_function("greet", greeter)
    text = tmp_path / "bundle.txt"
    text.write_text(bundle.source)
    program = (
        "space = {}; exec(open(__import__('sys').argv[1]).read(), space); "
        "print(space['greet']('ada'))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(text)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == '["Ada!", "Ada!"]/\n'


def test_a_bundle_reads_like_the_file_it_came_from(greeter: Path) -> None:
    text, _, version = bundle_function("greet", greeter).source.rpartition("BUNDLE_SHA256")
    assert version.startswith(' = "')
    assert text == (
        '''"""Says hello.

Twice \\\\ if "asked".
"""

from __future__ import annotations

import json
import os
import os.path
from dataclasses import dataclass
from pathlib import Path, PurePath as Pure

# _shared/words.py:

@dataclass
class Word:
    text: str | None

# _shared/names.py: Names of people.

LOUD = "!"

def capital(name: str) -> str:
    assert json and Path and Pure
    return Word(name).text.title()

# greet.py

# how often
TIMES = 2


@dataclass
class Greeting:
    word: Word
    times: int = TIMES


def greet(name: str) -> str:
    import sys

    del sys
    greeting = Greeting(Word(capital(name)))
    return json.dumps([greeting.word.text + LOUD] * greeting.times) + os.path.sep
'''
    )


def test_the_version_changes_with_a_shared_module_and_with_nothing_else(
    greeter: Path, tmp_path: Path
) -> None:
    first = bundle_function("greet", greeter)
    elsewhere = write(
        tmp_path / "other",
        {
            "greet.py": GREET,
            "_shared/names.py": NAMES,
            "_shared/words.py": WORDS,
            "_shared/unused.py": "X = 1\n",
        },
    )
    assert bundle_function("greet", elsewhere) == first
    changed = write(
        tmp_path / "changed",
        {
            "greet.py": GREET,
            "_shared/names.py": NAMES.replace('"!"', '"?"'),
            "_shared/words.py": WORDS,
        },
    )
    assert bundle_function("greet", changed).sha256 != first.sha256


def test_a_function_knows_the_sha256_of_all_lines_before_its_last(greeter: Path) -> None:
    bundle = bundle_function("greet", greeter)
    lines = bundle.source.splitlines(keepends=True)
    assert hashlib.sha256("".join(lines[:-1]).encode()).hexdigest() == bundle.sha256
    space: dict[str, object] = {}
    exec(bundle.source, space)
    assert space["BUNDLE_SHA256"] == bundle.sha256


def test_private_files_are_not_functions(greeter: Path) -> None:
    write(greeter, {"__init__.py": "", "_private.py": "", "notes.txt": ""})
    assert function_names(greeter) == ["greet"]


@pytest.mark.parametrize(
    ("entry", "shared", "sentence"),
    [
        ("import requests", "", "line 1, imports requests, which is not in the standard library"),
        ("from ._shared.s import a as b", "a = 1", "line 1, renames a with 'as'"),
        ("from ._shared import s", "a = 1", "_shared"),
        ("from . import s", "a = 1", "imports a module as a whole"),
        ("from ._shared.s import *", "a = 1", "imports *"),
        ("from os import *", "", "imports *"),
        ("from ._shared.s import gone", "a = 1", "imports gone, which functions/_shared/s.py does"),
        (
            "from ._shared.t import a",
            "",
            "There is no functions/_shared/t.py, which functions/f.py",
        ),
        (
            "from ._shared.s import a\na = 2",
            "a = 1",
            "_shared/s.py and functions/f.py both define a",
        ),
        (
            "from ._shared.s import a\nimport json",
            "a = json = 1",
            "imports json, which functions/_sh",
        ),
        (
            "from ._shared.s import a\nfrom os import path",
            "from sys import path\na = 1",
            "imports path from another place",
        ),
        ("import os; import sys", "", "shares its line"),
        (
            "def g():\n    from ._shared.s import a",
            "a = 1",
            "relative import that is not at the top",
        ),
        ("def g():\n    import numpy", "", "imports numpy"),
        ("from ._shared.s import a", "from ..f import f\na = 1", "imports itself through"),
    ],
)
def test_what_a_bundle_cannot_hold_is_refused_in_one_sentence(
    tmp_path: Path, entry: str, shared: str, sentence: str
) -> None:
    write(tmp_path, {"f.py": f"{entry}\ndef f():\n    pass\n", "_shared/s.py": shared})
    with pytest.raises(BundleError) as refused:
        bundle_function("f", tmp_path)
    assert sentence in refused.value.message
    assert refused.value.message.endswith(".")
    assert "\n" not in refused.value.message


def test_a_file_must_define_the_function_it_is_named_after(tmp_path: Path) -> None:
    write(tmp_path, {"f.py": "def g():\n    pass\n"})
    with pytest.raises(BundleError, match=r"functions/f\.py defines no function called f\."):
        bundle_function("f", tmp_path)


@pytest.mark.parametrize("name", function_names())
def test_every_registered_function_bundles_and_loads_in_a_bare_python(
    name: str, tmp_path: Path
) -> None:
    text = tmp_path / "bundle.txt"
    text.write_text(bundle_function(name).source)
    program = (
        "import sys; space = {}; exec(open(sys.argv[1]).read(), space); "
        "print(callable(space[sys.argv[2]]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(text), name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "True\n"


def test_the_program_that_checks_images_stands_alone(tmp_path: Path) -> None:
    """It runs on nodes that have Python and nothing else."""
    program = tmp_path / "check_image.py"
    program.write_text(image_check())
    site = tmp_path / "site.json"
    site.write_text(f'{{"root": "{tmp_path}", "allowed_bases": ["debian:*"]}}')
    image = tmp_path / "image.sif"
    image.write_text("SIF")
    said = {}
    for words in ([], [str(image)]):
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(program), *words],
            env={"PATH": "/usr/bin:/bin", "CIB_FLOWS_SITE": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        said[len(words)] = done.stderr
    assert "takes the path of one image" in said[0]
    assert "is not a registered container, and this site allows no other" in said[1]
    assert image_check() == program.read_text()


def test_a_program_needs_its_entry() -> None:
    with pytest.raises(BundleError, match="defines no function called missing"):
        bundle_program("_shared/worker_start", "missing")
