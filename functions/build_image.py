"""Runs ``apptainer build`` on the rendered recipe, and believes only a finished image that can be read."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from typing import Any

from ._shared.conda_install import CONDA_INSTALL_SOURCE
from ._shared.diagnostics import diagnose
from ._shared.files import read_lent, remove_tree, sha256_file, tail_of, write_text
from ._shared.processes import clean_environment, run_guarded
from ._shared.registry import credentials_are_for
from ._shared.results import StepFailed, run_step, shorten
from ._shared.run_folder import RunFolder
from ._shared.run_versions import find_apptainer
from ._shared.site import load_site
from ._shared.working import scratch_folder, working

PHASES = {
    "python": 10,
    "apt": 20,
    "payload": 30,
    "conda": 35,
    "pip": 45,
    "commands": 70,
    "image": 80,
}
MIN_FREE_BYTES = 2 * 1024**3
LOG_READ_BYTES = 4 * 1024 * 1024


def build_image(run_id: str, recipe_sha256: str) -> dict[str, Any]:
    """Third step: the build itself.

    Returns ``sif_path``, ``sif_sha256``, ``sif_bytes``, ``log_path`` and ``build_s``. The image stays in the
    run's work area until it has been verified and registered.
    """
    return run_step("build_image", lambda: _build(run_id, recipe_sha256))


def _build(run_id: str, recipe_sha256: str) -> dict[str, Any]:
    site = load_site()
    folder = RunFolder(site["root"], run_id)
    folder.require()
    plan = folder.read("plan.json")
    if plan["recipe_sha256"] != recipe_sha256 or sha256_file(folder.recipe) != recipe_sha256:
        raise StepFailed(
            "recipe_changed", "The run's recipe is no longer the one that was rendered."
        )
    with working(folder, site, "build_image", 5):
        return _build_with_engine(site, folder, plan)


def _build_with_engine(
    site: dict[str, Any], folder: RunFolder, plan: dict[str, Any]
) -> dict[str, Any]:
    engine = find_apptainer()
    if not engine:
        raise StepFailed(
            "apptainer_missing",
            "Neither apptainer nor singularity is installed where the endpoint builds.",
            "Ask the endpoint's administrator to install Apptainer or to load its module in 'worker_init'.",
        )
    os.makedirs(folder.work, mode=0o700, exist_ok=True)
    with scratch_folder(choose_tmpdir(site, folder), folder.run_id) as scratch:
        return _run_engine(engine, site, folder, plan, scratch)


def choose_tmpdir(site: dict[str, Any], folder: RunFolder) -> str:
    """Where a build unpacks: the site's choice, else the first local place that is fit for it."""
    if site["tmpdir"]:
        path: str = os.path.expandvars(os.path.expanduser(site["tmpdir"]))
        os.makedirs(path, exist_ok=True)
        return path
    for path in (tempfile.gettempdir(), "/var/tmp", folder.work):
        try:
            info = os.statvfs(path)
        except OSError:
            continue
        if (
            not info.f_flag & os.ST_NOEXEC
            and info.f_bavail * info.f_frsize >= MIN_FREE_BYTES
            and os.access(path, os.W_OK | os.X_OK)
        ):
            return path
    raise StepFailed(
        "disk_full",
        f"No temporary folder on the build node has {MIN_FREE_BYTES // 1024**3} GiB free for a build.",
        "Ask the endpoint's administrator to set 'tmpdir' in the site profile.",
    )


def _lend(
    site: dict[str, Any], exchange: str, plan: dict[str, Any], folder: RunFolder
) -> list[str]:
    """Fill the folder that is bound to ``/mnt`` during the build; returns the ``--bind`` options."""
    os.makedirs(exchange, mode=0o755)
    write_text(os.path.join(exchange, "lent"), "")
    binds = ["--bind", f"{exchange}:/mnt"]
    tools = os.path.join(exchange, "tools")
    os.mkdir(tools)
    if site["tools"] and os.path.isdir(site["tools"]):
        # bound read-only: a recipe's own commands must not be able to change the next build's tools
        binds += ["--bind", f"{site['tools']}:/mnt/tools:ro"]
    write_text(os.path.join(exchange, "conda_install.py"), CONDA_INSTALL_SOURCE)
    if site["ca_bundle"]:
        shutil.copyfile(site["ca_bundle"], os.path.join(exchange, "ca.crt"))
    if plan["payload"]["kind"] != "none":
        os.mkdir(os.path.join(exchange, "payload"))
        binds += ["--bind", f"{folder.payload}:/mnt/payload:ro"]
    return binds


def _build_environment(site: dict[str, Any], plan: dict[str, Any], scratch: str) -> dict[str, str]:
    environment = clean_environment(site)
    if not credentials_are_for(plan["base"]["resolved"].split("/")[0], site):
        for key in ("APPTAINER_DOCKER_USERNAME", "APPTAINER_DOCKER_PASSWORD"):
            environment.pop(key, None)
    temporary = os.path.join(scratch, "tmp")
    os.mkdir(temporary)
    cache = site["cachedir"] or os.path.join(site["root"], "cache", "apptainer")
    os.makedirs(cache, mode=0o700, exist_ok=True)
    environment.update(APPTAINER_TMPDIR=temporary, APPTAINER_CACHEDIR=cache, TMPDIR=temporary)
    # APPTAINERENV_ variables are set inside %post, and are not kept in the image
    inside = {
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


def _run_engine(
    engine: str, site: dict[str, Any], folder: RunFolder, plan: dict[str, Any], scratch: str
) -> dict[str, Any]:
    exchange = os.path.join(scratch, "exchange")
    binds = _lend(site, exchange, plan, folder)
    environment = _build_environment(site, plan, scratch)
    finished = f"{folder.image}.new"
    command = [engine, "build", "--force", *binds]
    if os.geteuid() == 0:
        # root in a container or VM may lack capabilities that a plain build asks for; a mapped root has them
        command.append("--fakeroot")
    if site["mksquashfs_args"]:
        command += ["--mksquashfs-args", site["mksquashfs_args"]]
    command += [finished, folder.recipe]

    def tell(_: float) -> None:
        phase = _phase(exchange, folder.log)
        folder.set_status("running", "build_image", phase, PHASES.get(phase, 8))

    with open(folder.log, "w", encoding="utf-8"):
        pass
    ended = run_guarded(
        command,
        cwd=folder.work,
        environment=environment,
        log_path=folder.log,
        time_limit_s=float(site["build_time_limit_s"]),
        scratch=[scratch],
        is_aborted=folder.is_aborted,
        on_tick=tell,
    )
    if ended.stopped or ended.status != 0:
        remove_tree(finished)
        raise _failure(ended.stopped, ended.status, site, folder, exchange)
    _require_readable(engine, finished, folder, environment)
    sha256 = sha256_file(finished)
    os.replace(finished, folder.image)
    result = {
        "sif_path": folder.image,
        "sif_sha256": sha256,
        "sif_bytes": os.path.getsize(folder.image),
        "log_path": folder.log,
        "build_s": round(ended.elapsed_s, 2),
    }
    folder.write("build.json", result)
    return result


def _phase(exchange: str, log: str) -> str:
    if "Creating SIF file" in tail_of(log, 2000):
        return "image"
    phase = read_lent(os.path.join(exchange, "phase"), 40).strip()
    return phase if phase in PHASES else "base"


def _failure(
    stopped: str, status: int | None, site: dict[str, Any], folder: RunFolder, exchange: str
) -> StepFailed:
    log = tail_of(folder.log, LOG_READ_BYTES)
    if stopped == "aborted":
        code, message, hint = "aborted", "The build was stopped on request.", ""
    elif stopped == "time_limit":
        code = "time_limit"
        message = (
            f"The build did not finish within {site['build_time_limit_s']} seconds and was stopped."
        )
        hint = "Make the image smaller, or ask the endpoint's administrator for a longer limit."
    else:
        refusal = _refusal(exchange)
        code, message, hint = refusal or diagnose(log)
        if code == "build_failed":
            message = f"Apptainer could not build the image (exit status {status})."
    return StepFailed(code, message, hint, log_path=folder.log, log_tail=log)


def _refusal(exchange: str) -> tuple[str, str, str] | None:
    """What the recipe itself refused, by the file that it leaves for us."""
    code, _, message = read_lent(os.path.join(exchange, "refusal"), 4000).partition("\n")
    hints = {
        "apt_missing": "Take a base image of Debian or Ubuntu, or leave 'apt' out.",
        "command_failed": "Correct the entry in 'commands'; the log shows what it printed.",
        "conda_missing": "Take a base image with conda, or ask the endpoint's administrator for its tools.",
        "python_missing": "Take a base image with Python such as python:3.11-slim, or set 'worker' to 'none'.",
        "python_too_old": "Take a base image with a newer Python, or set 'worker' to 'none'.",
    }
    if code not in hints or not message.strip():
        return None
    return code, shorten(message, 400), hints[code]


def _require_readable(
    engine: str, sif: str, folder: RunFolder, environment: dict[str, str]
) -> None:
    """An exit status of 0 is not an image: some failures end with 0 and no file."""
    listed = None
    if os.path.isfile(sif):
        listed = subprocess.run(
            [engine, "sif", "list", sif],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    if listed is None or listed.returncode != 0 or "Squashfs" not in listed.stdout:
        remove_tree(sif)
        raise StepFailed(
            "image_unreadable",
            "Apptainer reported success but left no image that can be read.",
            "The log's last lines are shown; start the run again.",
            log_path=folder.log,
            log_tail=tail_of(folder.log, LOG_READ_BYTES),
        )
