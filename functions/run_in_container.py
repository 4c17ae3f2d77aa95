"""Runs a command, a script or one function in a registered image, for endpoints that start no workers in images.

The program and its JSON go to Python's standard input in the image, so the image needs a Python at most, and no
Globus software. It runs a stranger's code by design, so it belongs to the 'run' profile alone.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from typing import IO, Any

from ._shared.catalogue import Catalogue
from ._shared.holds import leased_where_registered
from ._shared.modules import load_modules
from ._shared.processes import clean_environment
from ._shared.results import StepFailed, shorten
from ._shared.run_versions import engine_version, find_apptainer
from ._shared.singularity import engine_environment
from ._shared.site import SITE_VARIABLE, load_site
from ._shared.trust import require_allowed

MAX_STREAM_BYTES = 1024 * 1024
MAX_VALUE_BYTES = 4 * 1024 * 1024
RUN_PROFILE_VARIABLE = "CIB_FLOWS_RUN"
GPU_OPTIONS = {None: [], "nvidia": ["--nv"], "amd": ["--rocm"]}

# Runs in the image. The value follows a mark of this call's own, after whatever the code prints.
RUNNER = r"""
import json, sys
asked = json.loads({asked!r})
sys.argv = [asked["script"], *asked["argv"]]
code = compile(asked["source"], asked["script"], "exec")
space = {{"__name__": "__main__" if asked["function"] is None else "cib_flows_code", "__builtins__": __builtins__}}
exec(code, space)
if asked["function"] is not None:
    value = json.dumps(space[asked["function"]](*asked["args"], **asked["kwargs"]))
    if len(value) > asked["limit"]:
        sys.exit("the result is larger than %d bytes; write it to a file" % asked["limit"])
    sys.stdout.flush()
    sys.stdout.write("\n" + asked["mark"] + value + "\n")
"""


def run_in_container(
    container: str,
    source: str | None = None,
    function: str | None = None,
    args: list[Any] | None = None,
    kwargs: dict[str, Any] | None = None,
    argv: list[str] | None = None,
    command: list[str] | None = None,
    gpu: str | None = None,
    ranks: int | None = None,
    timeout_s: float | None = None,
    script: str = "script.py",
) -> dict[str, Any]:
    """Run ``command``, or ``source``: as a script with ``argv``, or its ``function`` with JSON ``args`` and
    ``kwargs``. ``container`` is a SIF's absolute path, or what the catalogue finds (name, name:tag, id).
    ``gpu`` is ``nvidia`` or ``amd``. With ``ranks`` so many copies are started by the batch system's MPI
    launcher, each in a container of its own; they share standard output, so a function cannot have any.

    Returns ``returncode``, ``stdout`` and ``stderr`` (at most their last megabyte) and, for a function,
    ``value``. ``ok`` says that something ran, not that it succeeded; 124 is the code when it ran out of time.
    """
    started = time.monotonic()
    try:
        image, inside, text, mark = _prepare(
            container, source, function, args, kwargs, argv, command, gpu, script
        )
        launcher = _launcher(ranks, function)
        site = load_site()
        with leased_where_registered(site, image, "run_in_container"):
            ran = _run(site, launcher, image, inside, text, mark, gpu, timeout_s)
        result = {"ok": True, "step": "run_in_container", **ran}
    except StepFailed as failure:
        result = {"ok": False, "step": "run_in_container", "error": failure.as_json()}
    result["elapsed_s"] = round(time.monotonic() - started, 3)
    return result


def _prepare(
    container: str,
    source: str | None,
    function: str | None,
    args: list[Any] | None,
    kwargs: dict[str, Any] | None,
    argv: list[str] | None,
    command: list[str] | None,
    gpu: str | None,
    script: str,
) -> tuple[str, list[str], str, str]:
    """The image, the words to run in it, what it reads on standard input, and the mark before a value."""
    if os.environ.get(SITE_VARIABLE) and not os.environ.get(RUN_PROFILE_VARIABLE):
        # the account of 'control' and 'build' may read what the caller may not
        raise StepFailed(
            "spec_invalid",
            "run_in_container runs in the endpoint's 'run' profile only.",
            "Leave 'profile' out of user_endpoint_config.",
        )
    if (source is None) == (command is None):
        raise StepFailed("spec_invalid", "Give either 'source' or 'command', and not both.")
    if gpu not in GPU_OPTIONS:
        raise StepFailed("spec_invalid", f"'gpu' is nvidia or amd, not {shorten(str(gpu), 40)!r}.")
    image = _image(container)
    if command is not None:
        words = [str(word) for word in command]
        if not words or words[0].startswith("-") or any("\0" in word for word in words):
            raise StepFailed(
                "spec_invalid", "'command' is a list of words, the first a program's name."
            )
        return image, words, "", ""
    if function is not None and not re.fullmatch(r"[A-Za-z_]\w*", function):
        raise StepFailed(
            "spec_invalid", f"'function' {shorten(function, 60)!r} is not a function's name."
        )
    mark = f"cib-flows-value-{secrets.token_hex(16)}:"
    asked = {
        "source": source,
        "function": function,
        "script": script,
        "argv": argv or [],
        "args": args or [],
        "kwargs": kwargs or {},
        "mark": mark,
        "limit": MAX_VALUE_BYTES,
    }
    return image, ["python3", "-"], RUNNER.format(asked=json.dumps(asked)), mark


def _launcher(ranks: int | None, function: str | None) -> list[str]:
    """The words that start ``ranks`` copies of a command; none for one copy."""
    if ranks is None:
        return []
    if not isinstance(ranks, int) or isinstance(ranks, bool) or ranks < 1 or function is not None:
        raise StepFailed(
            "spec_invalid",
            "'ranks' is a number above 0, for a command or a script, not for a function.",
        )
    # The worker that runs this may be a step of the job itself, whose processors the ranks then share.
    words = ["srun", "--overlap"] if os.environ.get("SLURM_JOB_ID") else ["mpiexec"]
    if words[0] == "srun" and ranks > _processors():
        words.append("--overcommit")  # slower than a larger job, and better than none
    if not shutil.which(words[0]):
        raise StepFailed(
            "spec_invalid",
            f"'ranks' needs {words[0]}, which is not on PATH where this endpoint runs functions.",
            "Have its module loaded in the endpoint's 'worker_init'.",
        )
    return [*words, "-n", str(ranks)]


def _processors() -> int:
    """How many the Slurm job has, on all of its nodes."""
    try:
        each = int(os.environ.get("SLURM_CPUS_ON_NODE", "1"))
        return each * int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    except ValueError:
        return 1


def _image(container: str) -> str:
    if container.startswith("/"):
        if not container.endswith(".sif") or not os.path.isfile(container):
            raise StepFailed(
                "container_not_found",
                f"There is no image {shorten(container, 300)} where this endpoint runs.",
                "The image must lie on storage that the endpoint's nodes share.",
            )
        return container
    catalogue = Catalogue(load_site()["root"])
    return str(catalogue.find(container)["path"])


def _run(
    site: dict[str, Any],
    launcher: list[str],
    image: str,
    inside: list[str],
    text: str,
    mark: str,
    gpu: str | None,
    timeout_s: float | None,
) -> dict[str, Any]:
    load_modules(site)
    engine = find_apptainer()
    if not engine:
        raise StepFailed(
            "apptainer_missing",
            "Neither apptainer nor singularity is installed where this endpoint runs functions.",
            "Load its module in the endpoint's 'worker_init', or name it in the site profile.",
        )
    require_allowed(site, image)
    environment = clean_environment(site)
    environment["APPTAINERENV_PYTHONNOUSERSITE"] = "1"
    environment = engine_environment(engine_version(), environment)
    options = ["--silent", "exec", *GPU_OPTIONS[gpu]]
    # Where the worker keeps its own files, every node of the job sees them; ranks other than the first have
    # no standard input.
    place = os.getcwd() if launcher else None
    if launcher:
        # that of the worker's own step, which srun would warn about
        environment.pop("SLURM_NTASKS_PER_NODE", None)
    with tempfile.NamedTemporaryFile(suffix=".py", dir=place) as program:
        program.write(text.encode())
        program.flush()
        program.seek(0)
        if launcher and text:
            options += ["--bind", os.path.dirname(program.name)]
            inside = [inside[0], program.name]
        command = [*launcher, engine, *options, image, *inside]
        process = subprocess.Popen(
            command,
            stdin=program,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        limit = MAX_STREAM_BYTES + (MAX_VALUE_BYTES if mark else 0)
        output, errors = _Tail(process.stdout, limit), _Tail(process.stderr, MAX_STREAM_BYTES)
        try:
            code = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            code = 124
        finally:
            _end_group(process)
    printed, said = output.text(), errors.text()
    if code == 255 and "FATAL:" in said and not printed:
        raise StepFailed(
            "image_unreadable",
            f"The image does not start here: {shorten(said.split('FATAL:', 1)[1], 300)}",
            "Run 'cib-flows doctor' to see what the endpoint's nodes lack.",
        )
    before, found, value = printed.rpartition("\n" + mark) if mark else (printed, "", "")
    result: dict[str, Any] = {
        "returncode": code if code >= 0 else 128 - code,
        "stdout": (before if found else printed)[-MAX_STREAM_BYTES:],
        "stderr": said,
    }
    if found:
        result["value"] = json.loads(value)
    return result


class _Tail:
    """Reads a pipe to its end, and keeps what came last."""

    def __init__(self, pipe: IO[bytes], limit: int) -> None:
        self.kept = bytearray()
        self.thread = threading.Thread(target=self._read, args=(pipe, limit), daemon=True)
        self.thread.start()

    def _read(self, pipe: IO[bytes], limit: int) -> None:
        with pipe:
            while block := os.read(pipe.fileno(), 65536):
                self.kept += block
                if len(self.kept) > 2 * limit:
                    del self.kept[:-limit]
            del self.kept[:-limit]

    def text(self) -> str:
        self.thread.join(10)  # a program that left the group may hold the pipe
        return bytes(self.kept).decode("utf-8", "replace")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever the command left running."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()
