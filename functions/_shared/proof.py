"""The proof of an image: what it does when it is run, judged by what its spec asks for."""

from __future__ import annotations

import datetime
import json
import os
import platform
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .files import tail_of, write_text
from .grammars import pip_name
from .hardware_checks import GPU_COMMANDS, MPI_SOURCE, gpu_options, judge_gpu, judge_mpi
from .image_facts import (
    FACTS_SOURCE,
    OWN_PLACE,
    ImageFacts,
    facts_arguments,
    judge_facts,
    read_facts,
)
from .machine_check import require_machine
from .probe import DECOY_MODULE, PROBE_SOURCE
from .processes import clean_environment, run_guarded
from .results import StepFailed, last_bytes, shorten
from .run_folder import RunFolder
from .run_versions import engine_version
from .sif import partition_sha256, squash_partition
from .squash_listing import list_image, unreadable

# Nothing of the host: an empty home in memory (programs may write there), no environment, no bound folders.
# What a site mounts into every container would hide what an image lacks at all other sites.
CONTAINED = [
    *("--containall", "--cleanenv", "--no-eval", "--pwd", "/"),
    *("--no-mount", "bind-paths,hostfs"),
]
# A loopback device and nothing else; the one network that Apptainer gives everybody.
NO_NETWORK = ["--net", "--network", "none"]
WORKER_PROGRAM = "globus-compute-endpoint"
MAX_PRINTED_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 16 * 1024 * 1024  # of our own programs, which list packages and hashes
LOG_BYTES = 8000
# Where people put programs; what only its owner can read there is told, below our own folders it is refused.
PROGRAM_FOLDERS = ["/opt", "/usr/local", "/srv"]


class ImageUnderTest:
    """Runs commands in an image until the deadline, keeping a bounded part of what they print.

    ``folder`` is the run that asks: its work area holds what is printed, and its abort ends the command.
    ``inventory`` is filled by :func:`prove`: the ``debian``, ``pip`` and ``conda`` packages, each a list, or
    None where the image could not say.
    """

    def __init__(self, engine: str, path: str, site: dict[str, Any], folder: RunFolder) -> None:
        self.engine = engine
        self.path = path
        self.environment = clean_environment(site)
        self.folder = folder
        self.limit_s = float(site["verify_time_limit_s"])
        self.end = time.monotonic() + self.limit_s
        self.options: list[str] = []
        self.is_isolated = True
        self.action = "run"
        self.inventory: dict[str, Any] = {}

    def run(
        self, *arguments: str, home: str | None = None, max_bytes: int = MAX_PRINTED_BYTES
    ) -> tuple[int, str, str]:
        """``(exit status, standard output, standard error)`` of a command in the image, without network where
        the node allows that. ``home`` is a folder to use as the home.
        """
        options = [*self.options, *(["--home", f"{home}:/home/user"] if home else [])]
        if self.is_isolated:
            done = self._run([*NO_NETWORK, *options], arguments, max_bytes)
            if done[0] == 0 or "FATAL" not in done[2]:
                return done
            # some sites allow no network namespaces; an image that is broken fails both ways
            again = self._run(options, arguments, max_bytes)
            if "FATAL" not in again[2]:
                self.is_isolated = False
            return again
        return self._run(options, arguments, max_bytes)

    def _run(
        self, options: list[str], arguments: tuple[str, ...], max_bytes: int
    ) -> tuple[int, str, str]:
        # the work area is private, and gone after the run whatever happens here
        with tempfile.TemporaryDirectory(prefix="verify-", dir=self.folder.work) as place:
            output, errors = os.path.join(place, "output"), os.path.join(place, "errors")
            # one's own names, which Apptainer otherwise takes from the node
            hosts = os.path.join(place, "hosts")
            write_text(hosts, f"127.0.0.1 localhost {platform.node()}\n::1 localhost\n")
            binds = ["--bind", f"{hosts}:/etc/hosts:ro"]
            ended = run_guarded(
                [self.engine, self.action, *CONTAINED, *binds, *options, self.path, *arguments],
                cwd="/",
                environment=self.environment,
                log_path=errors,
                output_path=output,
                max_output_bytes=max_bytes,
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
            return ended.status, tail_of(output, 2 * max_bytes), tail_of(errors, LOG_BYTES)


def prove(
    image: ImageUnderTest, sif_sha256: str, spec: dict[str, Any], worker: dict[str, str]
) -> dict[str, Any]:
    """The verification of an image: arguments pass through, what ``spec`` asks for is there and works, the
    Compute ``worker`` has its versions, nothing of the host shows, and everybody can read it.

    Raises :class:`StepFailed` for the first thing that does not hold.
    """
    verify = spec["verify"]
    image.options = gpu_options(verify.get("gpu"))
    microarchitecture = require_machine(spec["machine"], engine_version())
    if spec["runscript"]:
        image.action = "exec"  # it has a command of its own, on which nobody's worker relies
    machine = platform.machine()  # nothing is built for another machine than the node
    wants_python = bool(spec["pip"] or spec["conda"] or verify.get("imports") or worker)
    # each start of a container takes a good part of a second, and they do not depend on one another
    with ThreadPoolExecutor(max_workers=4) as pool:
        facts_found = pool.submit(_facts, image, spec)
        probe = pool.submit(_probe, image, spec) if wants_python else None
        starts = pool.submit(_check_worker, image) if worker else None
        stored = pool.submit(_check_file_system, image.path, spec, machine)
        facts = facts_found.result()
        judge_facts(facts, spec, machine)
        found = probe.result() if probe else NO_PYTHON
        if probe:
            _judge(found, spec, worker)
        if starts:
            starts.result()
        squashfs = stored.result()
    # an MPI that the spec asked for is started once, unless the spec says that it must not be
    hardware = _check_hardware(image, {"mpi": bool(spec["machine"].get("mpi")), **verify})
    commands = []
    for text in verify.get("commands", []):
        image.folder.raise_if_aborted()
        commands.append(_check_command(image, text))
    image.inventory = {"debian": facts.debian, "pip": found["pip"], "conda": found["conda"]}
    return {
        "sif_sha256": sif_sha256,
        **squashfs,
        "verified_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "engine": engine_version(),
        "arguments_pass_through": image.action == "run" or None,
        "network": "none" if image.is_isolated else "of the node, which allows no other",
        "architecture": facts.architecture or None,
        "locale": facts.locale,
        "host": {
            "python": platform.python_version(),
            "machine": machine,
            "microarchitecture": microarchitecture,
        },
        "python": found["python"],
        "executable": found["executable"],
        "encoding": found["encoding"],
        "user_packages_are_shut_out": bool(probe) or None,
        "requirements_hold": None if found["conflicts"] is None else True,
        "debian_packages_are_whole": None if facts.debian is None else True,
        "worker": worker,
        "imports": found["imported"],
        "mounts": spec["mounts"],
        "files": verify.get("files", []),
        **hardware,
        "commands": commands,
        "packages": found["packages"],
    }


# What is known of the Python of an image that was not asked to have one.
NO_PYTHON: dict[str, Any] = {
    "python": None,
    "executable": None,
    "encoding": None,
    "packages": {},
    "imported": [],
    "conflicts": None,
    "pip": None,
    "conda": None,
}


def _facts(image: ImageUnderTest, spec: dict[str, Any]) -> ImageFacts:
    script = ["/bin/sh", "-c", FACTS_SOURCE, "sh", *facts_arguments(spec)]
    return read_facts(*image.run(*script, max_bytes=MAX_ANSWER_BYTES))


def _check_file_system(path: str, spec: dict[str, Any], machine: str) -> dict[str, Any]:
    """Digest of the image's file system, and who can read what in it."""
    partition = squash_partition(path)
    if partition is None:
        return {"squashfs_sha256": None, "unreadable": None}
    if partition.architecture and partition.architecture != machine.replace("i686", "i386"):
        raise StepFailed(
            "verify_architecture",
            f"The image is for {partition.architecture}, and it was to be for {machine}.",
            f"Take a base image for {machine}.",
        )
    listing = list_image(path, partition)
    hidden = None
    if listing is not None:
        own = [OWN_PLACE, spec["payload"]["destination"], *(spec["verify"].get("files") or [])]
        shut = unreadable(listing, own, everywhere=False)
        if shut:
            raise StepFailed(
                "verify_file_unreadable",
                f"{shorten(shut[0], 200)} in the image can be read by its owner only, and whoever runs the image "
                "is somebody else.",
                "Add a command such as 'chmod -R go+rX' with its folder to 'commands'.",
            )
        hidden = unreadable(listing, PROGRAM_FOLDERS, everywhere=True)[:20]
    return {"squashfs_sha256": partition_sha256(path, partition), "unreadable": hidden}


def _check_hardware(image: ImageUnderTest, verify: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {}
    if verify.get("gpu"):
        kind = verify["gpu"]
        done["gpu"] = judge_gpu(kind, *image.run("/bin/sh", "-c", GPU_COMMANDS[kind]))
    if verify.get("mpi"):
        done["mpi"] = judge_mpi(*image.run("/bin/sh", "-c", MPI_SOURCE))
    return done


def _probe(image: ImageUnderTest, spec: dict[str, Any]) -> dict[str, Any]:
    asked = {
        "requirements": [[pip_name(item), ";" in item] for item in spec["pip"]],
        "imports": spec["verify"].get("imports"),
        "prefix": f"{OWN_PLACE}/",
        "decoy": DECOY_MODULE,
    }
    with tempfile.TemporaryDirectory(prefix="home-", dir=image.folder.work) as home:
        _fill_home(home)
        status, output, errors = image.run(
            "python3", "-c", PROBE_SOURCE, json.dumps(asked), home=home, max_bytes=MAX_ANSWER_BYTES
        )
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


def _fill_home(home: str) -> None:
    """A home as users have them, with a package in it for each Python there may be."""
    packages = os.path.join(home, "packages")
    os.mkdir(packages)
    write_text(os.path.join(packages, f"{DECOY_MODULE}.py"), "")
    for minor in range(8, 20):
        folder = os.path.join(home, ".local", "lib", f"python3.{minor}")
        os.makedirs(folder)
        os.symlink("../../../packages", os.path.join(folder, "site-packages"))


def _answer(found: Any) -> dict[str, Any] | None:
    """The probe's answer, or None: what the image calls python3 may be anything, and answer anything."""
    if not isinstance(found, dict):
        return None
    names, table = (found.get("missing"), found.get("imported")), ("packages", "failed")
    if not all(isinstance(found.get(key), str) for key in ("python", "executable", "encoding")):
        return None
    if not all(isinstance(n, list) and all(isinstance(i, str) for i in n) for n in names):
        return None
    for key in table:
        if not isinstance(found.get(key), dict) or not all(
            isinstance(value, str) for value in found[key].values()
        ):
            return None
    conflicts = found.get("conflicts")
    if conflicts is not None and not (
        isinstance(conflicts, list)
        and all(
            isinstance(c, list) and len(c) == 3 and all(isinstance(i, str) for i in c)
            for c in conflicts
        )
    ):
        return None
    lists = (found.get("pip"), found.get("conda"))
    if not all(isinstance(n, list) and all(isinstance(i, dict) for i in n) for n in lists):
        return None
    return {
        "python": shorten(found["python"], 40),
        "executable": shorten(found["executable"], 200),
        "encoding": shorten(found["encoding"], 40),
        "packages": {shorten(n, 128): shorten(v, 80) for n, v in found["packages"].items()},
        "missing": found["missing"],
        "imported": [shorten(name, 256) for name in found["imported"]],
        "failed": found["failed"],
        "conflicts": conflicts,
        "decoy": bool(found.get("decoy")),
        "pip": found["pip"],
        "conda": found["conda"],
    }


def _judge(found: dict[str, Any], spec: dict[str, Any], worker: dict[str, str]) -> None:
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
    for name, version in worker.items():
        if found["packages"].get(name) != version:
            raise StepFailed(
                "verify_version_mismatch",
                f"The image has {name} {found['packages'].get(name, 'not at all')}, "
                f"and the endpoint needs {version} for its workers.",
                f"Do not ask for another {name} in 'pip' or 'commands'.",
            )
    for package, requirement, there in found["conflicts"] or []:
        has = f"has {there}" if there else "has none"
        raise StepFailed(
            "verify_inconsistent",
            f"The Python package {shorten(package, 80)} requires {shorten(requirement, 120)}, and the image {has}.",
            "A command in 'commands' may have replaced or removed a package behind pip's back.",
        )
    if found["decoy"]:
        raise StepFailed(
            "verify_host_leak",
            "Python packages in the home of whoever runs the image take the place of the image's own.",
            "Do not change PYTHONNOUSERSITE in 'environment' or 'commands'.",
        )
    if found["encoding"].lower().replace("-", "") != "utf8":
        raise StepFailed(
            "verify_environment",
            f"The image's Python reads file names as {found['encoding']}, not as UTF-8.",
            "Do not set LC_ALL, LANG or PYTHONUTF8 in 'environment' to another encoding.",
        )


def _check_worker(image: ImageUnderTest) -> None:
    status, output, errors = image.run(WORKER_PROGRAM, "version")
    if status != 0:
        raise StepFailed(
            "verify_version_mismatch",
            f"The image's {WORKER_PROGRAM} does not start (exit status {status}).",
            "One of the requested packages may be incompatible with it; the last lines say what happened.",
            log_tail=output + errors,
        )


def _check_command(image: ImageUnderTest, text: str) -> dict[str, Any]:
    status, output, errors = image.run("/bin/sh", "-c", text)
    if status != 0:
        raise StepFailed(
            "verify_command_failed",
            f"The command of 'verify.commands' ended with status {status}: {shorten(text, 200)}",
            "Its last lines are shown; correct the command or what the image holds."
            + (" It runs without network here." if image.is_isolated else ""),
            log_tail=output + errors,
        )
    return {"command": text, "output": last_bytes(output, 500)}
