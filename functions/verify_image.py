"""Proves a built image by running it; nothing is registered that was not proved."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ._shared.files import sha256_file, tail_of
from ._shared.grammars import pip_name
from ._shared.node_check import prepare_node
from ._shared.probe import PROBE_SOURCE
from ._shared.processes import clean_environment, run_guarded
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
MAX_PRINTED_BYTES = 1024 * 1024
LOG_BYTES = 8000


def verify_image(run_id: str, sif_sha256: str) -> dict[str, Any]:
    """Fourth step: arguments pass through, requested packages are there and import, the worker matches the
    endpoint, and the spec's own commands succeed.

    Returns ``verification_path``, ``verification_sha256``, ``python``, ``imports`` (how many),
    ``packages`` (the worker's own, with versions) and ``package_count``, and passes ``sif_sha256`` on.
    """
    return run_step("verify_image", lambda: _verify(run_id, sif_sha256))


class _Image:
    """The image under test: runs commands in it until the deadline, keeping a bounded part of what they print."""

    def __init__(self, engine: str, site: dict[str, Any], folder: RunFolder) -> None:
        self.command = [engine, *CONTAINED, folder.image]
        self.environment = clean_environment(site)
        self.folder = folder
        self.limit_s = float(site["verify_time_limit_s"])
        self.end = time.monotonic() + self.limit_s

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """``(exit status, standard output, standard error)`` of a command in the image."""
        # the work area is private, and gone after the run whatever happens here
        with tempfile.TemporaryDirectory(prefix="verify-", dir=self.folder.work) as place:
            output, errors = os.path.join(place, "output"), os.path.join(place, "errors")
            ended = run_guarded(
                [*self.command, *arguments],
                cwd="/",
                environment=self.environment,
                log_path=errors,
                output_path=output,
                max_output_bytes=MAX_PRINTED_BYTES,
                time_limit_s=max(1.0, self.end - time.monotonic()),
                scratch=[],
                is_aborted=self.folder.is_aborted,
                on_tick=lambda _: None,
            )
            if ended.stopped == "aborted":
                self.folder.raise_if_aborted()
            if ended.status is None:
                raise StepFailed(
                    "time_limit",
                    f"The verification did not finish within {self.limit_s:g} seconds and was stopped.",
                    "Shorten 'verify', or ask the endpoint's administrator for a longer limit.",
                    log_tail=tail_of(errors, LOG_BYTES),
                )
            return ended.status, tail_of(output, 2 * MAX_PRINTED_BYTES), tail_of(errors, LOG_BYTES)


def _verify(run_id: str, sif_sha256: str) -> dict[str, Any]:
    site = prepare_node(load_site(), least_s=20)
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
    image = _Image(engine, site, folder)
    wants_python = bool(spec["pip"]) or bool(spec["verify"].get("imports")) or bool(plan["worker"])
    # each start of a container takes a good part of a second, and they do not depend on one another
    with ThreadPoolExecutor(max_workers=3) as pool:
        arguments = pool.submit(_check_arguments, image)
        probe = pool.submit(_probe, image, spec) if wants_python else None
        worker = pool.submit(_check_worker, image) if plan["worker"] else None
        arguments.result()
        found = probe.result() if probe else {"python": None, "packages": {}, "imported": []}
        if probe:
            _judge(found, spec, plan)
        if worker:
            worker.result()
    commands = []
    for text in spec["verify"].get("commands", []):
        folder.raise_if_aborted()
        commands.append(_check_command(image, text))
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


def _check_arguments(image: _Image) -> None:
    """A Compute worker is started as ``run IMAGE command arguments…``: they must arrive as they are."""
    script = 'for argument in "$@"; do printf "<%s>\\n" "$argument"; done'
    status, output, errors = image.run("/bin/sh", "-c", script, "sh", *TRICKY_ARGUMENTS)
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


def _probe(image: _Image, spec: dict[str, Any]) -> dict[str, Any]:
    asked = {
        "requirements": [[pip_name(item), ";" in item] for item in spec["pip"]],
        "imports": spec["verify"].get("imports"),
    }
    status, output, errors = image.run("python3", "-c", PROBE_SOURCE, json.dumps(asked))
    try:
        found = _answer(json.loads(output))
    except (ValueError, RecursionError):
        found = None
    if status != 0 or found is None:
        raise StepFailed(
            "python_missing",
            f"The image's python3 does not run (exit status {status}).",
            "A command in 'commands' may have damaged it; the last lines say what happened.",
            log_tail=errors,
        )
    return found


def _answer(found: Any) -> dict[str, Any] | None:
    """The probe's answer, or None: what the image calls python3 may be anything, and answer anything."""
    if not isinstance(found, dict):
        return None
    names, table = (found.get("missing"), found.get("imported")), ("packages", "failed")
    if not all(isinstance(found.get(key), str) for key in ("python", "executable")):
        return None
    if not all(isinstance(n, list) and all(isinstance(i, str) for i in n) for n in names):
        return None
    for key in table:
        if not isinstance(found.get(key), dict) or not all(
            isinstance(value, str) for value in found[key].values()
        ):
            return None
    return {
        "python": shorten(found["python"], 40),
        "executable": shorten(found["executable"], 200),
        "packages": {shorten(n, 128): shorten(v, 80) for n, v in found["packages"].items()},
        "missing": found["missing"],
        "imported": [shorten(name, 256) for name in found["imported"]],
        "failed": found["failed"],
    }


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


def _check_worker(image: _Image) -> None:
    status, output, errors = image.run(WORKER_PROGRAM, "version")
    if status != 0:
        raise StepFailed(
            "verify_version_mismatch",
            f"The image's {WORKER_PROGRAM} does not start (exit status {status}).",
            "One of the requested packages may be incompatible with it; the last lines say what happened.",
            log_tail=output + errors,
        )


def _check_command(image: _Image, text: str) -> dict[str, Any]:
    status, output, errors = image.run("/bin/sh", "-c", text)
    if status != 0:
        raise StepFailed(
            "verify_command_failed",
            f"The command of 'verify.commands' ended with status {status}: {shorten(text, 200)}",
            "Its last lines are shown; correct the command or what the image holds.",
            log_tail=output + errors,
        )
    return {"command": text, "output": last_bytes(output, 500)}
