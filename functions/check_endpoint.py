"""Reports, point by point, whether images can be built and run where it runs, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from typing import Any

from ._shared.diagnostics import diagnose
from ._shared.files import write_text
from ._shared.modules import load_modules
from ._shared.network import check_host
from ._shared.node_check import (
    GREEN,
    RED,
    SHARED_TYPES,
    YELLOW,
    free_bytes,
    is_real_root,
    job_point,
    mount_of,
    node_points,
    point,
)
from ._shared.places import GIB, choose_tmpdir, node_path
from ._shared.processes import clean_environment
from ._shared.results import StepFailed, run_step, shorten
from ._shared.run_versions import WORKER_PACKAGES, engine_version, find_apptainer, own_versions
from ._shared.singularity import BUILD_ISOLATION, engine_command, engine_environment
from ._shared.site import FAKEROOT_OPTIONS, load_site
from ._shared.tiny_image import (
    TINY_RECIPE,
    TINY_SHELL,
    shows_devices,
    shows_host,
    way_to_root,
    write_tiny_archive,
)
from ._shared.working import scratch_folder

NO_RUN = "00000000"  # in the name of the scratch folder, where a run's id begins
TINY_TIMEOUT_S = 120
CONNECT_TIMEOUT_S = 10
ORDER = (GREEN, YELLOW, RED)
MAX_FOUND_CHARS = 260
MAX_TODO_CHARS = 220


def check_endpoint(part: str = "build") -> dict[str, Any]:
    """What the node that runs this is good for. ``part`` is the endpoint's profile that it runs in:
    ``control`` looks at storage and network, ``build`` builds a tiny image too, which takes some seconds.

    Returns ``state`` (the worst of all), ``points`` (each ``name``, ``state``, ``found``, ``todo``), ``host``,
    ``site`` and ``versions``.
    """
    return run_step("check_endpoint", lambda: _check(part))


def _check(part: str) -> dict[str, Any]:
    versions = _versions()
    try:
        site = load_site()
    except StepFailed as failure:
        return _report("", [point("site profile", RED, failure.message, failure.hint)], versions)
    points = [point("site profile", GREEN, f"'{site['name']}', with its root at {site['root']}.")]
    points += [_root_point(site), *_certificates_points(site), _network_point(site)]
    points += [_worker_point(versions)]
    if part == "control":
        return _report(site["name"], [*points, _staging_point(site)], versions)
    points += _modules_points(site)
    points += [*node_points(site, site["root"]), _cache_point(site), job_point(site)]
    points += [_fuse_point(), _tools_point(site)]
    if find_apptainer() and not is_real_root():
        points += _tiny_points(site)
    return _report(site["name"], points, versions)


def _modules_points(site: dict[str, Any]) -> list[dict[str, str]]:
    if not site["modules"]:
        return []
    try:
        load_modules(site)
    except StepFailed as failure:
        return [point("modules", RED, failure.message, failure.hint)]
    return [point("modules", GREEN, f"Loaded: {', '.join(site['modules'])}.")]


def _report(site: str, points: list[dict[str, str]], versions: dict[str, str]) -> dict[str, Any]:
    return {
        "state": max((item["state"] for item in points), key=ORDER.index),
        "points": [
            {
                "name": item["name"],
                "state": item["state"],
                "found": shorten(item["found"], MAX_FOUND_CHARS),
                "todo": shorten(item["todo"], MAX_TODO_CHARS) if item["state"] != GREEN else "",
            }
            for item in points
        ],
        "host": socket.gethostname(),
        "site": site,
        "versions": versions,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "kernel": platform.release()}
    found["machine"] = platform.machine()
    found.update(own_versions())
    return found


def _worker_point(versions: dict[str, str]) -> dict[str, str]:
    missing = [name for name in WORKER_PACKAGES if name not in versions]
    if missing:
        return point(
            "worker",
            YELLOW,
            f"The versions of {' and '.join(missing)} cannot be told here, and images must match them.",
            "Build with 'worker: none', or have the endpoint installed with its packages' metadata.",
        )
    said = ", ".join(f"{name} {versions[name]}" for name in WORKER_PACKAGES)
    return point("worker", GREEN, f"Images get {said}; Python here is {versions['python']}.")


def _root_point(site: dict[str, Any]) -> dict[str, str]:
    root = site["root"]
    todo = "Ask the endpoint's administrator to correct 'root' in the site profile."
    try:
        os.makedirs(root, exist_ok=True)
        handle, probe = tempfile.mkstemp(prefix=".check-", dir=root)
        os.close(handle)
        os.rename(probe, f"{probe}-renamed")
        os.unlink(f"{probe}-renamed")
    except OSError as problem:
        return point("root", RED, f"{root} cannot be written: {problem.strerror}.", todo)
    kind, _ = mount_of(root)
    free = free_bytes(root)
    said = f"{root} ({kind}, {free / GIB:.1f} GiB free) can be written."
    if free < 10 * GIB:
        return point(
            "root", YELLOW, said, "An image takes up to some GiB: make room, or remove old ones."
        )
    return point("root", GREEN, said)


def _cache_point(site: dict[str, Any]) -> dict[str, str]:
    try:
        path = node_path(site["cachedir"] or f"{site['root']}/cache/apptainer", "cachedir")
    except StepFailed as failure:
        return point("cache", RED, failure.message, failure.hint)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as problem:
        return point(
            "cache", RED, f"Apptainer's cache {path} cannot be made: {problem.strerror}.",
            "Ask the endpoint's administrator to correct 'cachedir' in the site profile.",
        )  # fmt: skip
    if not os.access(path, os.W_OK):
        return point(
            "cache", YELLOW, f"Apptainer's cache {path} cannot be written, so every base is fetched anew.",
            "Ask the endpoint's administrator to correct 'cachedir' in the site profile.",
        )  # fmt: skip
    return point(
        "cache", GREEN, f"{path} ({mount_of(path)[0]}, {free_bytes(path) / GIB:.1f} GiB free)."
    )


def _fuse_point() -> dict[str, str]:
    slow = (
        "Images are unpacked at every start, which is slow and needs space in the temporary folder."
    )
    if not os.path.exists("/dev/fuse"):
        return point(
            "FUSE", YELLOW, f"There is no /dev/fuse. {slow}", "Ask for the kernel's fuse module."
        )
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return point("FUSE", YELLOW, f"/dev/fuse may not be used by this account. {slow}",
                     "Ask the administrator for access to /dev/fuse.")  # fmt: skip
    return point("FUSE", GREEN, "/dev/fuse can be used.")


def _tools_point(site: dict[str, Any]) -> dict[str, str]:
    folder = site["tools"]
    here = [
        name for name in ("uv", "rattler") if folder and os.path.exists(os.path.join(folder, name))
    ]
    if "uv" not in here:
        return point(
            "tools",
            YELLOW,
            f"There is no uv in the tools folder ({folder or 'none is set'}), so pip installs, more slowly.",
            "Put uv and py-rattler into a folder, and name it by 'tools' in the site profile.",
        )
    return point("tools", GREEN, f"{' and '.join(here)} in {folder}.")


def _staging_point(site: dict[str, Any]) -> dict[str, str]:
    staging = site["staging"]
    if not staging:
        return point(
            "staging", YELLOW, "No staging collection is set: Globus Transfer cannot bring payloads.",
            "Set 'staging' in the site profile, or give payloads as https addresses or git repositories.",
        )  # fmt: skip
    path = staging["path"]
    if not os.path.isdir(path) or not os.access(path, os.W_OK | os.X_OK):
        return point(
            "staging", RED, f"The staging folder {path} does not exist on this node, or cannot be written.",
            "It must be the folder that the collection shows, on storage that this node sees.",
        )  # fmt: skip
    return point("staging", GREEN, f"{path} ({mount_of(path)[0]}) can be written.")


def _certificates_points(site: dict[str, Any]) -> list[dict[str, str]]:
    path = site["ca_bundle"]
    if not path:
        return []
    try:
        ssl.create_default_context(cafile=path)
    except OSError:
        return [
            point(
                "certificates",
                RED,
                f"The site profile's 'ca_bundle' {path} is not a readable file of certificates on this node.",
                "Ask the endpoint's administrator to correct it.",
            )
        ]
    return [point("certificates", GREEN, f"{path} can be read.")]


def _network_point(site: dict[str, Any]) -> dict[str, str]:
    """Whether a registry can be reached from here: bases come from one, and packages by the same way."""
    host = site["registry_mirrors"].get("docker.io", "registry-1.docker.io")
    proxy = (
        site["proxies"].get("https")
        or os.environ.get("https_proxy")
        or os.environ.get("HTTPS_PROXY")
    )
    target, way = (
        (proxy, f"the proxy {_without_secret(proxy)}") if proxy else (host, f"the registry {host}")
    )
    address = target.rsplit("@", 1)[-1].split("//")[-1].rstrip("/")
    name, _, port = (
        address.rpartition(":") if address.rsplit(":", 1)[-1].isdigit() else (address, "", "443")
    )
    todo = "Set 'proxies' or 'registry_mirrors' in the site profile, or build where the network is reached."
    try:
        with socket.create_connection((name, int(port)), timeout=CONNECT_TIMEOUT_S):
            pass
    except OSError as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        return point(
            "network", RED, f"{way[0].upper()}{way[1:]} cannot be reached: {reason}.", todo
        )
    if not proxy and not site["registry_mirrors"].get("docker.io"):
        try:
            check_host(f"https://{host}/v2/", site, "network", "The registry")
        except StepFailed as failure:
            return point("network", YELLOW, failure.message, failure.hint or todo)
    return point("network", GREEN, f"{way[0].upper()}{way[1:]} can be reached.")


def _without_secret(proxy: str) -> str:
    return proxy.rsplit("@", 1)[-1].split("//")[-1]


def _tiny_points(site: dict[str, Any]) -> list[dict[str, str]]:
    """Build an image of two megabytes for real, and start it."""
    engine = find_apptainer()
    if engine is None:
        return []
    try:
        parent = choose_tmpdir(site["tmpdir"], site["root"], in_memory=site["unpack_in_memory"])
        with scratch_folder(parent, NO_RUN) as scratch:
            return _try_tiny(engine, site, scratch, mount_of(parent)[0])
    except (StepFailed, OSError) as problem:
        return [point("build", RED, f"No build could be tried: {problem}.")]


def _try_tiny(engine: str, site: dict[str, Any], scratch: str, kind: str) -> list[dict[str, str]]:
    archive, recipe, image = (
        os.path.join(scratch, name) for name in ("tiny.tar", "tiny.def", "tiny.sif")
    )
    write_tiny_archive(archive)
    write_text(recipe, TINY_RECIPE.format(archive=archive))
    environment = clean_environment(site)
    temporary, cache = os.path.join(scratch, "tmp"), os.path.join(scratch, "cache")
    os.mkdir(temporary)
    os.mkdir(cache)
    environment.update(APPTAINER_TMPDIR=temporary, APPTAINER_CACHEDIR=cache, TMPDIR=temporary)
    environment.update(BUILD_ISOLATION)
    options = list(FAKEROOT_OPTIONS[site["fakeroot"]]) or (
        ["--fakeroot"] if os.geteuid() == 0 else []
    )
    version = engine_version()
    environment = engine_environment(version, environment)
    status, log, took = _run(
        engine_command(version, [engine, "build", "--force", *options, image, recipe]),
        scratch,
        environment,
    )
    if status != 0 or not os.path.isfile(image):
        code, message, hint = diagnose(log)
        if code == "build_failed":
            fatal = [line for line in log.splitlines() if "FATAL" in line or "ERROR" in line]
            message = (
                f"A tiny build failed: {(fatal or log.splitlines() or ['it printed nothing'])[0]}"
            )
        on = f" (in {temporary}, {kind})" if kind in SHARED_TYPES else ""
        return [point("build", RED, f"{message}{on}", hint)]
    way = way_to_root(log) or "in an unknown way"
    said = f"A tiny image was built {way}, in {took:.1f} s."
    built = point("build", GREEN, said)
    if "root-mapped" in way and "fakeroot" not in way:
        built = point(
            "build", YELLOW, said,
            "Packages that make users or change owners may fail: ask for a range in /etc/subuid and "
            "/etc/subgid, or for the fakeroot command.",
        )  # fmt: skip
    if shows_devices(log):
        built = point(
            "build", YELLOW, f"{said} Commands of a recipe see this node's /dev, and its memory folder /dev/shm.",
            "Leave 'unpack_in_memory' off in the site profile, or install a newer Apptainer.",
        )  # fmt: skip
    if shows_host(log):
        built = point(
            "build", YELLOW, f"{said} Commands of a recipe reach the files of this account through /proc.",
            "Let only people build here who may see what the account sees, or install a newer Apptainer.",
        )  # fmt: skip
    command = [
        engine,
        "exec",
        "--containall",
        "--cleanenv",
        image,
        TINY_SHELL,
        "-c",
        "read -r a < /cib-proof; echo $a",
    ]
    status, log, took = _run(command, scratch, environment)
    if status != 0 or "proved" not in log:
        fatal = [line for line in log.splitlines() if "FATAL" in line]
        reason = (fatal or log.splitlines()[-1:] or ["it printed nothing"])[0]
        return [built, point("start", RED, f"The tiny image does not start: {reason}",
                             "Ask the administrator whether this node can mount images.")]  # fmt: skip
    if "temporary sandbox" in log:
        return [built, point("start", YELLOW, f"Images start by being unpacked each time ({took:.1f} s here).",
                             "Ask for squashfuse and /dev/fuse on this node.")]  # fmt: skip
    return [built, point("start", GREEN, f"It started in {took:.1f} s.")]


def _run(command: list[str], folder: str, environment: dict[str, str]) -> tuple[int, str, float]:
    """Exit status (124 when out of time), all that was printed, and seconds."""
    started = time.monotonic()
    timeout = shutil.which("timeout")
    limited = [timeout, "-k", "5", str(TINY_TIMEOUT_S), *command] if timeout else command
    done = subprocess.run(
        limited,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace"), time.monotonic() - started
