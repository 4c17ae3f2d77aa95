"""Proves a built image by running it; nothing is registered that was not proved."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ._shared.files import sha256_file
from ._shared.grammars import pip_name
from ._shared.probe import PROBE_SOURCE
from ._shared.processes import clean_environment
from ._shared.results import StepFailed, last_bytes, run_step, shorten
from ._shared.run_folder import RunFolder
from ._shared.run_versions import engine_version, find_apptainer
from ._shared.site import load_site
from ._shared.working import working

# Nothing of the host: an empty home in memory (programs may write there), no environment, no bound folders.
CONTAINED = ["run", "--containall", "--cleanenv", "--no-eval", "--pwd", "/"]
# Arguments that a careless runscript would split, expand or drop.
TRICKY_ARGUMENTS = ["plain", "two words", 'it\'s "quoted"', "$HOME *", ""]
WORKER_PROGRAM = "globus-compute-endpoint"


def verify_image(run_id: str, sif_sha256: str) -> dict[str, Any]:
    """Fourth step: arguments pass through, requested packages are there and import, the worker matches the
    endpoint, and the spec's own commands succeed.

    Returns ``verification_path``, ``verification_sha256``, ``python``, ``imports`` (how many),
    ``packages`` (the worker's own, with versions) and ``package_count``, and passes ``sif_sha256`` on.
    """
    return run_step("verify_image", lambda: _verify(run_id, sif_sha256))


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return max(1.0, self.end - time.monotonic())


def _verify(run_id: str, sif_sha256: str) -> dict[str, Any]:
    site = load_site()
    folder = RunFolder(site["root"], run_id)
    folder.require()
    with working(folder, site, "verify_image", 90):
        return _verify_image(site, folder, sif_sha256)


def _verify_image(site: dict[str, Any], folder: RunFolder, sif_sha256: str) -> dict[str, Any]:
    plan, spec = folder.read("plan.json"), folder.read("spec.json")
    if sha256_file(folder.image) != sif_sha256:
        raise StepFailed("image_changed", "The image is no longer the one that was built.")
    engine = find_apptainer()
    if not engine:
        raise StepFailed(
            "apptainer_missing",
            "Neither apptainer nor singularity is installed where images are verified.",
        )
    deadline = _Deadline(float(site["verify_time_limit_s"]))
    command = [engine, *CONTAINED, folder.image]
    environment = clean_environment(site)
    wants_python = bool(spec["pip"]) or bool(spec["verify"].get("imports")) or bool(plan["worker"])
    # each start of a container takes a good part of a second, and they do not depend on one another
    with ThreadPoolExecutor(max_workers=3) as pool:
        arguments = pool.submit(_check_arguments, command, environment, deadline)
        probe = pool.submit(_probe, command, environment, deadline, spec) if wants_python else None
        worker = (
            pool.submit(_check_worker, command, environment, deadline) if plan["worker"] else None
        )
        arguments.result()
        found = probe.result() if probe else {"python": None, "packages": {}, "imported": []}
        if probe:
            _judge(found, spec, plan)
        if worker:
            worker.result()
    commands = []
    for text in spec["verify"].get("commands", []):
        folder.raise_if_aborted()
        commands.append(_check_command(command, environment, deadline, text))
    verification = {
        "sif_sha256": sif_sha256,
        "verified_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "engine": engine_version(),
        "arguments_pass_through": True,
        "python": found["python"],
        "executable": found.get("executable"),
        "worker": plan["worker"],
        "imports": found["imported"],
        "commands": commands,
        "packages": found["packages"],
    }
    path = folder.write("verification.json", verification)
    return {
        "verification_path": path,
        "verification_sha256": sha256_file(path),
        "sif_sha256": sif_sha256,
        "python": found["python"],
        "imports": len(found["imported"]),
        "packages": {n: v for n, v in found["packages"].items() if n in plan["worker"]},
        "package_count": len(found["packages"]),
    }


def _run(
    command: list[str], environment: dict[str, str], deadline: _Deadline
) -> tuple[int, str, str]:
    """``(exit status, standard output, standard error)``; the whole process group ends at the deadline."""
    process = subprocess.Popen(
        command,
        env=environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=deadline.left())
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise StepFailed(
            "time_limit",
            f"The verification did not finish within {deadline.seconds:g} seconds and was stopped.",
            "Shorten 'verify', or ask the endpoint's administrator for a longer limit.",
        ) from None
    return (
        process.returncode,
        output.decode("utf-8", "replace"),
        errors.decode("utf-8", "replace"),
    )


def _check_arguments(command: list[str], environment: dict[str, str], deadline: _Deadline) -> None:
    """A Compute worker is started as ``run IMAGE command arguments…``: they must arrive as they are."""
    script = 'for argument in "$@"; do printf "<%s>\\n" "$argument"; done'
    status, output, errors = _run(
        [*command, "/bin/sh", "-c", script, "sh", *TRICKY_ARGUMENTS], environment, deadline
    )
    if status == 0 and output.splitlines() == [f"<{argument}>" for argument in TRICKY_ARGUMENTS]:
        return
    if "FATAL" in errors:
        fatal = next(line for line in errors.splitlines() if "FATAL" in line)
        raise StepFailed(
            "image_unreadable",
            f"The image does not start here: {shorten(fatal.split('FATAL:')[-1], 300)}.",
            "Ask the endpoint's administrator whether the node can mount images.",
            log_tail=errors,
        )
    raise StepFailed(
        "verify_arguments",
        "The image does not run the command it is given with its arguments unchanged.",
        "A command in 'commands' may have replaced the image's runscript or /bin/sh.",
        log_tail=last_bytes(output + errors, 2000),
    )


def _probe(
    command: list[str], environment: dict[str, str], deadline: _Deadline, spec: dict[str, Any]
) -> dict[str, Any]:
    asked = {
        "requirements": [[pip_name(item), ";" in item] for item in spec["pip"]],
        "imports": spec["verify"].get("imports"),
    }
    status, output, errors = _run(
        [*command, "python3", "-c", PROBE_SOURCE, json.dumps(asked)], environment, deadline
    )
    try:
        found = json.loads(output)
    except ValueError:
        found = None
    if status != 0 or not isinstance(found, dict):
        raise StepFailed(
            "python_missing",
            f"The image's python3 does not run (exit status {status}).",
            "A command in 'commands' may have damaged it; the last lines say what happened.",
            log_tail=errors,
        )
    return found


def _judge(found: dict[str, Any], spec: dict[str, Any], plan: dict[str, Any]) -> None:
    if found["missing"]:
        raise StepFailed(
            "verify_package_missing",
            f"The Python package '{found['missing'][0]}' was asked for but is not in the image.",
            "A command in 'commands' may have removed it.",
        )
    for module, reason in found["failed"].items():
        asked = "'verify.imports' asks for" if spec["verify"].get("imports") else "'pip' brings"
        raise StepFailed(
            "verify_import_failed",
            f"The module '{module}', which {asked}, cannot be imported in the image: {reason}.",
            "Add what it needs, or list in 'verify.imports' the modules that must import without it.",
        )
    for name, version in plan["worker"].items():
        if found["packages"].get(name) != version:
            raise StepFailed(
                "verify_version_mismatch",
                f"The image has {name} {found['packages'].get(name, 'not at all')}, "
                f"and the endpoint needs {version} for its workers.",
                f"Do not ask for another {name} in 'pip' or 'commands'.",
            )


def _check_worker(command: list[str], environment: dict[str, str], deadline: _Deadline) -> None:
    status, output, errors = _run([*command, WORKER_PROGRAM, "version"], environment, deadline)
    if status != 0:
        raise StepFailed(
            "verify_version_mismatch",
            f"The image's {WORKER_PROGRAM} does not start (exit status {status}).",
            "One of the requested packages may be incompatible with it; the last lines say what happened.",
            log_tail=output + errors,
        )


def _check_command(
    command: list[str], environment: dict[str, str], deadline: _Deadline, text: str
) -> dict[str, Any]:
    status, output, errors = _run([*command, "/bin/sh", "-c", text], environment, deadline)
    if status != 0:
        raise StepFailed(
            "verify_command_failed",
            f"The command of 'verify.commands' ended with status {status}: {shorten(text, 200)}",
            "Its last lines are shown; correct the command or what the image holds.",
            log_tail=output + errors,
        )
    return {"command": text, "output": last_bytes(output, 500)}
