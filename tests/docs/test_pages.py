"""What the pages say of commands, files and examples is so."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

import cib_flows
from cib_flows import ContainerSpec, errors
from cib_flows.cli import main
from cib_flows.functions._shared import site

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/*.md")]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
ENDPOINT = "11111111-1111-4111-8111-111111111111"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(text_of(name)) if kind == language]


def slugs(text: str) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def test_the_pages_are_there() -> None:
    wanted = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/spec.md"}
    wanted |= {f"docs/{name}.md" for name in ("cli", "endpoint", "errors", "flow", "site-profile")}
    assert wanted <= set(NAMES)
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").split()[:3] == [
        "Apache",
        "License",
        "Version",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    for link in LINK.findall(FENCE.sub("", text_of(name))):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.exists(), f"{name} links to {link}"
        if anchor:
            assert anchor in slugs(target.read_text(encoding="utf-8")), f"{name} links to {link}"


def command_lines(name: str) -> Iterator[list[str]]:
    """The words after ``cib-flows`` in code, each time it is called with some."""
    text = text_of(name)
    code = [body for _, body in FENCE.findall(text)]
    code += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for piece in code:
        # the command itself, not a name that holds it, a version or an output that begins with it
        for call in re.findall(r"(?<![\w/.~-])cib-flows ((?!works)[a-z][^\n`'\"|#;)]*)", piece):
            yield call.split()


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_option_exists(name: str) -> None:
    for words in command_lines(name):
        command: click.Command = main
        rest = list(words)
        while isinstance(command, click.Group) and rest and rest[0] != "…":
            found = command.get_command(click.Context(command), rest[0])
            assert found is not None, f"{name}: there is no command 'cib-flows {' '.join(words)}'"
            command = found
            rest.pop(0)
        if isinstance(command, click.Group):
            continue
        known = {option for parameter in command.params for option in parameter.opts}
        own = rest[: rest.index("--")] if "--" in rest else rest
        for word in own:
            if word.startswith("--"):
                assert word in {*known, "--help"}, (
                    f"{name}: 'cib-flows {' '.join(words)}' has {word}"
                )


def shell_lines(name: str) -> Iterator[str]:
    """Each line of the page's shell examples as one would type it."""
    for kind, body in FENCE.findall(text_of(name)):
        lines = re.sub(r"\\\n\s*", " ", body).splitlines()
        if kind in ("bash", "sh"):
            yield from (line.strip() for line in lines)
        elif kind == "console":
            yield from (line[2:] for line in lines if line.startswith("$ "))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_line_is_one_that_the_command_takes(name: str) -> None:
    """Its arguments and the values of its options too, but for whether files are there."""
    for line in shell_lines(name):
        call = re.search(r"^cib-flows ([a-z].*)|\$\(cib-flows ([a-z].*)\)", line)
        if call is None or "…" in line:
            continue
        words = shlex.split(call[1] or call[2], comments=True)
        words = list(itertools.takewhile(lambda word: word not in (">", "|", "&&"), words))
        words = [ENDPOINT if word == "UUID" else word for word in words]
        command: click.Command = main
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, f"{name}: {line}"
            command = found
        said = ""
        try:
            command.make_context(str(command.name), words)
        except click.UsageError as problem:
            said = problem.message
        is_file = "does not exist" in said or "No such file" in said
        assert said == "" or is_file, f"{name}: {line}: {said}"


def test_the_readme_names_commands() -> None:
    named = {words[0] for words in command_lines("README.md")}
    assert {"build", "render", "validate", "deploy", "containers", "local", "cancel"} <= named


def test_the_readme_shows_the_python_example_as_it_is() -> None:
    example = (ROOT / "examples" / "python_api.py").read_text(encoding="utf-8")
    shown = blocks("README.md", "python")
    assert example in shown
    for program in shown:
        compile(program, "README.md", "exec")


def test_the_page_on_python_names_what_is_there() -> None:
    page = text_of("docs/python.md")
    for program in blocks("docs/python.md", "python"):
        compile(program, "docs/python.md", "exec")
    named = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE)
    api = {name: said for name, said in named if not name.endswith("Error")}
    own = {name for name in cib_flows.__all__ if not name.endswith("Error")} - {"__version__"}
    assert set(api) == own
    for name, said in api.items():
        for attribute in re.findall(r"`(\w+)`", said.partition(":")[2]):
            assert hasattr(getattr(cib_flows, name), attribute), f"{name}.{attribute}"
    words = set(re.findall(r"`(\w+Error)`", page))
    assert words == set(errors.__all__)
    for name, _, code in re.findall(r"^\| `(\w+Error)` \| ([^|]+) \| (\d) \|", page, re.MULTILINE):
        assert getattr(errors, name).exit_code == int(code)


def test_the_readme_names_every_field_of_the_form() -> None:
    schema = json.loads(text_of("flows/build_container/input_schema.json"))
    section = text_of("README.md").partition("shows this form.")[2].partition("\n## ")[0]
    fields = {
        title
        for cell in re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
        for title in cell.split(", ")
    }
    titles = {field["title"] for field in schema["properties"].values()}
    assert titles == fields - {"Field", "---"}


def test_every_page_is_in_the_list_of_pages() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall(text_of("docs/README.md"))}
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= linked


@pytest.mark.parametrize("name", ["README.md", "docs/spec.md"])
def test_every_spec_that_is_shown_is_valid(name: str) -> None:
    shown = blocks(name, "yaml")
    assert shown
    for spec in shown:
        ContainerSpec.from_text(spec)


@pytest.mark.parametrize("name", NAMES)
def test_every_json_example_can_be_read(name: str) -> None:
    for example in blocks(name, "json"):
        json.loads(example)


def test_the_site_profile_shown_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "site.json"
    profile.write_text(blocks("docs/site-profile.md", "json")[0], encoding="utf-8")
    monkeypatch.setenv(site.SITE_VARIABLE, str(profile))
    assert site.load_site()["name"] == "example-cluster"


def test_the_allow_list_shown_is_one() -> None:
    [listed] = [yaml.safe_load(text) for text in blocks("docs/endpoint.md", "yaml")]
    assert list(listed) == ["allowed_functions"]


@pytest.mark.parametrize("name", NAMES)
def test_no_page_knows_the_machine_it_was_written_on(name: str) -> None:
    odd = re.findall(r"/home/\w+|/root/|docker\.io", text_of(name))
    assert odd == []


@pytest.mark.parametrize("name", NAMES)
def test_files_named_as_the_repositorys_exist(name: str) -> None:
    folders = "flows|functions|deploy_scripts|examples|tests|docs|cib_flows"
    for path in re.findall(rf"`((?:{folders})/[A-Za-z0-9_./-]+)`", text_of(name)):
        assert (ROOT / path).exists(), f"{name} names {path}"


def test_every_python_file_of_the_hooks_is_there() -> None:
    hooks = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert all(hook["language"] == "system" for hook in hooks)
    scripts = [word for hook in hooks for word in hook["entry"].split() if word.endswith(".py")]
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)


def test_the_scripts_named_in_the_readme_are_valid_shell() -> None:
    for script in sorted(set(re.findall(r"deploy_scripts/\w+\.sh", text_of("README.md")))):
        subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
