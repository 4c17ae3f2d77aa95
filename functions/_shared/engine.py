"""One ``apptainer build``, and what became of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import Any

from .conda_install import CONDA_INSTALL_SOURCE
from .diagnostics import diagnose
from .files import read_lent, remove_tree, tail_of, write_text
from .lock_files import lend_lock
from .payload_asks import asked_of, lend_asked
from .phases import PHASES, phase_seconds
from .places import node_path, processors
from .processes import Ended, clean_environment, run_guarded
from .registry import credentials_are_for
from .results import StepFailed, shorten
from .run_folder import RunFolder
from .run_versions import engine_version
from .singularity import BUILD_ISOLATION, engine_command, engine_environment
from .site import FAKEROOT_OPTIONS
from .time_left import time_limit_failure

# What a contained build has in little memory, where a compiler or pip needs much room.
ROOMY_FOLDERS = ("/tmp", "/var/tmp")
# For apt in commands, too: a namespace may map one user only, and a contained build has no terminals.
APT_SETTINGS = 'APT::Sandbox::User "root";\nDpkg::Use-Pty "0";\n'
OWN_PROGRAMS = ("command_failed", "post_build_failed")
NODE_IS_FULL = ("disk_full", "out_of_memory")
LOG_READ_BYTES = 4 * 1024 * 1024


class Builder:
    """Runs builds of one run with one engine in one scratch folder."""

    def __init__(
        self,
        engine: str,
        site: dict[str, Any],
        folder: RunFolder,
        plan: dict[str, Any],
        scratch: str,
    ) -> None:
        self.engine = engine
        self.site = site
        self.folder = folder
        self.plan = plan
        self.scratch = scratch
        self.exchange = os.path.join(scratch, "exchange")
        # of this node: the plan was made on another
        self.version = engine_version()
        self.environment = engine_environment(self.version, _build_environment(site, plan, scratch))
        self.elapsed_s = 0.0
        self.phases_s: dict[str, float] = {}

    def build(self, recipe: str, image: str, done: list[str], *, with_payload: bool) -> None:
        """Build ``recipe`` (a file) to ``image``, appending to the run's log.

        ``done`` are the phases that the recipe's base has behind it. Raises :class:`StepFailed`, and leaves
        no file, when it fails.
        """
        remove_tree(self.exchange)
        binds = self._lend(done, with_payload)
        command = [self.engine, "build", "--force", *binds]
        options = FAKEROOT_OPTIONS[self.site["fakeroot"]]
        command += options
        if os.geteuid() == 0 and not options:
            # root of a namespace, such as a container's, lacks capabilities that a plain build asks for
            command.append("--fakeroot")
        arguments = squash_arguments(self.site, self.version)
        if arguments:
            command += ["--mksquashfs-args", arguments]
        ended = run_guarded(
            engine_command(self.version, [*command, image, recipe]),
            cwd=self.folder.work,
            environment=self.environment,
            log_path=self.folder.log,
            time_limit_s=float(self.site["build_time_limit_s"]) - self.elapsed_s,
            scratch=[self.scratch],
            is_aborted=self.folder.is_aborted,
            on_tick=self._tell,
        )
        self.elapsed_s += ended.elapsed_s
        for phase, seconds in phase_seconds(self.exchange).items():
            self.phases_s[phase] = round(self.phases_s.get(phase, 0.0) + seconds, 2)
        if ended.stopped or ended.status != 0:
            remove_tree(image)
            raise self._failure(ended)
        self._require_readable(image)

    def _lend(self, done: list[str], with_payload: bool) -> list[str]:
        """Fill the folder that is bound to ``/mnt`` during the build; returns the ``--bind`` options."""
        os.makedirs(self.exchange, mode=0o755)
        write_text(os.path.join(self.exchange, "lent"), "")
        write_text(os.path.join(self.exchange, "done"), "".join(f"{phase}\n" for phase in done))
        binds = ["--bind", f"{self.exchange}:/mnt"]
        write_text(os.path.join(self.exchange, "apt.conf"), APT_SETTINGS)
        for number, roomy in enumerate(ROOMY_FOLDERS):
            private = os.path.join(self.scratch, f"private-{number}")
            if not os.path.isdir(private):
                os.mkdir(private)
                os.chmod(private, 0o1777)  # noqa: S103 - as every temporary folder is
            binds += ["--bind", f"{private}:{roomy}"]
        os.mkdir(os.path.join(self.exchange, "tools"))
        if self.site["tools"] and os.path.isdir(self.site["tools"]):
            # bound read-only: a recipe's own commands must not be able to change the next build's tools
            binds += ["--bind", f"{self.site['tools']}:/mnt/tools:ro"]
        write_text(os.path.join(self.exchange, "conda_install.py"), CONDA_INSTALL_SOURCE)
        if self.site["ca_bundle"]:
            try:
                shutil.copyfile(self.site["ca_bundle"], os.path.join(self.exchange, "ca.crt"))
            except OSError as problem:
                raise StepFailed(
                    "site_invalid",
                    f"The site profile's 'ca_bundle' {self.site['ca_bundle']} cannot be read on the build node: "
                    f"{problem.strerror}.",
                    "Ask the endpoint's administrator to correct it.",
                ) from None
        lend_lock(self.folder, self.exchange)
        if "asked" in self.plan:
            lend_asked(asked_of(self.plan), os.path.join(self.exchange, "asked"))
        if with_payload and self.plan["payload"]["kind"] != "none":
            os.mkdir(os.path.join(self.exchange, "payload"))
            binds += ["--bind", f"{self.folder.payload}:/mnt/payload:ro"]
        return binds

    def _tell(self, _: float) -> None:
        phase = read_lent(os.path.join(self.exchange, "phase"), 40).strip()
        if "Creating SIF file" in tail_of(self.folder.log, 2000):
            phase = "image"
        phase = phase if phase in PHASES else "base"
        self.folder.set_status("running", "build_image", phase, PHASES[phase])

    def _failure(self, ended: Ended) -> StepFailed:
        log = tail_of(self.folder.log, LOG_READ_BYTES)
        if ended.stopped == "aborted":
            code, message, hint = "aborted", "The build was stopped on request.", ""
        elif ended.stopped == "time_limit":
            code = "time_limit"
            limit_s = float(self.site["build_time_limit_s"])
            message, hint = time_limit_failure(self.site, "The build", limit_s)
        else:
            found = diagnose(log)
            refused = refusal_in(self.exchange)
            if refused and refused[0] in OWN_PROGRAMS and found[0] in NODE_IS_FULL:
                # the recipe's own program failed, though not by a fault of its own
                refused = (found[0], f"{found[1]} {refused[1]}", found[2])
            code, message, hint = refused or killed_by(ended.status) or found
            if code == "build_failed":
                message = f"Apptainer could not build the image (exit status {ended.status})."
        return StepFailed(code, message, hint, log_path=self.folder.log, log_tail=log)

    def _require_readable(self, image: str) -> None:
        """An exit status of 0 is not an image: some failures end with 0 and no file."""
        listed = None
        if os.path.isfile(image):
            listed = subprocess.run(
                [self.engine, "sif", "list", image],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        if listed is None or listed.returncode != 0 or "Squashfs" not in listed.stdout:
            remove_tree(image)
            raise StepFailed(
                "image_unreadable",
                "Apptainer reported success but left no image that can be read.",
                "The log's last lines are shown; start the run again.",
                log_path=self.folder.log,
                log_tail=tail_of(self.folder.log, LOG_READ_BYTES),
            )


def squash_arguments(site: dict[str, Any], engine: str) -> str:
    """What mksquashfs is told: the site's words, else a quick compressor where the engine can take them.

    zstd at level 4 packs within a few hundredths of Apptainer's default, gzip at level 9, in less than a tenth
    of the time; level 6 takes twice as long for a twentieth less (benchmarks/compressors.py measures it).
    ``--mksquashfs-args`` came with Apptainer 1.4.
    """
    if site["mksquashfs_args"] is not None:
        given: str = site["mksquashfs_args"]
        return given
    found = engine.split()[-1].split(".") if engine.startswith("apptainer version") else []
    if len(found) < 2 or not (found[0].isdigit() and found[1].isdigit()):
        return ""
    if (int(found[0]), int(found[1])) < (1, 4):
        return ""
    return f"-comp zstd -Xcompression-level 4 -processors {processors()}"


def _build_environment(site: dict[str, Any], plan: dict[str, Any], scratch: str) -> dict[str, str]:
    environment = clean_environment(site)
    # the engine shows a password to every registry that it asks, and Spack's image may come from another one
    asked = [plan["base"]["resolved"], *filter(None, [plan.get("spack_builder")])]
    if not all(credentials_are_for(image.split("/")[0], site) for image in asked):
        for key in ("APPTAINER_DOCKER_USERNAME", "APPTAINER_DOCKER_PASSWORD"):
            environment.pop(key, None)
    temporary = os.path.join(scratch, "tmp")
    os.mkdir(temporary)
    cache = node_path(site["cachedir"] or f"{site['root']}/cache/apptainer", "cachedir")
    os.makedirs(cache, mode=0o700, exist_ok=True)
    environment.update(APPTAINER_TMPDIR=temporary, APPTAINER_CACHEDIR=cache, TMPDIR=temporary)
    environment.update(BUILD_ISOLATION)
    # APPTAINERENV_ variables are set inside %post, and are not kept in the image
    inside = {
        "APT_CONFIG": "/mnt/apt.conf",
        "PIP_INDEX_URL": site["pip_index_url"],
        "UV_DEFAULT_INDEX": site["pip_index_url"],
        "PIP_EXTRA_INDEX_URL": " ".join(site["pip_extra_index_urls"]),
        "UV_INDEX": " ".join(site["pip_extra_index_urls"]),
        "UV_CACHE_DIR": "/mnt/uv-cache",
        "PIP_CACHE_DIR": "/mnt/pip-cache",
        "RATTLER_CACHE_DIR": "/mnt/conda-cache",
        "CONDA_PKGS_DIRS": "/mnt/conda-cache",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "UV_NO_CONFIG": "1",
    }
    if site["ca_bundle"]:
        for key in (
            "SSL_CERT_FILE",
            "PIP_CERT",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "GIT_SSL_CAINFO",
        ):
            inside[key] = "/mnt/ca.crt"
    for key, value in inside.items():
        if value:
            environment[f"APPTAINERENV_{key}"] = str(value)
    for scheme, proxy in site["proxies"].items():
        environment[f"{scheme}_proxy"] = environment[f"{scheme.upper()}_PROXY"] = str(proxy)
    return environment


def killed_by(status: int | None) -> tuple[str, str, str] | None:
    """What a status above 128 says; Apptainer itself ends with 255 at most, whatever its programs do."""
    try:
        name = signal.Signals((status or 0) - 128).name
    except ValueError:
        return None
    return (
        "build_killed",
        f"Apptainer was ended from outside by the signal {name}.",
        "Most often the node or the batch job has no memory or time left: ask the endpoint's administrator for "
        "more, or make the image smaller.",
    )


def refusal_in(exchange: str) -> tuple[str, str, str] | None:
    """What the recipe itself refused, by the file that it leaves for us."""
    code, _, message = read_lent(os.path.join(exchange, "refusal"), 4000).partition("\n")
    hints = {
        "apt_package_not_found": "Check its spelling in 'apt'; names differ between releases.",
        "apt_missing": "Take a base image of Debian or Ubuntu, or leave 'apt' out.",
        "command_failed": "Correct the entry in 'commands'; the log shows what it printed.",
        "conda_missing": "Take a base image with conda, or ask the endpoint's administrator for its tools.",
        "machine_mismatch": "Correct 'machine', or take a base image or build endpoint that has it.",
        "post_build_failed": "Correct the payload's postBuild; the log shows what it printed.",
        "python_missing": "Take a base image with Python such as python:3.11-slim, or set 'worker' to 'none'.",
        "python_too_old": "Take a base image with a newer Python, or set 'worker' to 'none'.",
    }
    if code not in hints or not message.strip():
        return None
    return code, shorten(message, 400), hints[code]
