"""The command that an endpoint starts its workers in an image with, read from the endpoint's own template."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from cib_flows.errors import NotFoundError, UsageError

__all__ = ["launch_line", "shipped_template", "sites", "try_image"]

TEMPLATE = "user_config_template.yaml.j2"
# The folded text below the key; Parsl formats the two words in braces when it starts a worker.
OPTIONS = re.compile(r"^( *)container_cmd_options: *>-\n((?:\1 +.*\n?)+)", re.MULTILINE)
GPU_CHOICE = re.compile(r"'\"([a-z]+)\"': \"([^\"]*)\"")


def sites() -> list[str]:
    """The sites whose endpoint files come with this package."""
    folder = files("cib_flows.endpoints")
    return sorted(entry.name for entry in folder.iterdir() if entry.joinpath(TEMPLATE).is_file())


def shipped_template(site: str) -> str:
    """The text of a site's template."""
    return (
        files("cib_flows.endpoints").joinpath(site).joinpath(TEMPLATE).read_text(encoding="utf-8")
    )


def launch_line(
    template: str, image: str, command: Sequence[str], run_folder: str, gpu: str | None = None
) -> list[str]:
    """The arguments that start ``command`` in ``image`` as the template's 'run' profile starts a worker.

    ``run_folder`` stands for the executor's. Raises ``UsageError`` when the template starts no containers, or
    needs something that is not known here.
    """
    found = OPTIONS.search(template)
    if not found:
        raise UsageError("The template has no container_cmd_options, so it starts no containers.")
    words: list[str] = []
    for part in re.split(r"(\{\{.*?\}\}(?=\s))", found[2]):
        if part.startswith("{{"):
            words += _value(part, image, gpu)
        else:
            words += shlex.split(part)
    line: list[str] = []
    for word in words:
        if word == "{EXECUTOR_LAUNCH_CMD}":
            line += command
        else:
            line.append(word.replace("{EXECUTOR_RUNDIR}", run_folder))
    return line


def _value(expression: str, image: str, gpu: str | None) -> list[str]:
    if "container_uri" in expression:
        return [image]
    if "gpu" in expression:
        known = dict(GPU_CHOICE.findall(expression))
        if gpu is not None and gpu not in known:
            raise UsageError(f"The template knows no GPU of kind '{gpu}'.")
        return shlex.split(known[gpu]) if gpu else []
    raise UsageError(
        f"The template's container_cmd_options hold {expression}, which needs a task's options."
    )


def try_image(
    template: str,
    image: str,
    command: Sequence[str],
    gpu: str | None,
    tell: Callable[[list[str]], None],
    output: int | None = None,
) -> int:
    """Run ``command`` in ``image``, a file of this computer, as the template would; returns its exit code.

    ``tell`` is called with all arguments before they are run; what the command prints goes to the file
    descriptor ``output``, or where this program's own goes. Raises ``NotFoundError`` when this computer has
    no such file.
    """
    if not Path(image).is_file():
        raise NotFoundError(
            f"This computer has no image {image}.",
            "Run this where the endpoint's file system is, or use 'cib-flows containers exec'.",
        )
    with tempfile.TemporaryDirectory(prefix="cib-flows-test-") as folder:
        line = launch_line(template, str(Path(image).resolve()), command, folder, gpu)
        if shutil.which(line[0]) is None:
            raise UsageError(f"{line[0]} is not installed on this computer.")
        tell(line)
        done = subprocess.run(
            line, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, check=False
        )
    return done.returncode
