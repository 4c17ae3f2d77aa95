"""What a node is like for building and running images: each point green, yellow or red, with what to do.

Everything here is read from files of the kernel and takes milliseconds, so that a build can look first.
"""

from __future__ import annotations

import os
import pwd
import shutil
from typing import Any

from .modules import load_modules
from .places import GIB, choose_tmpdir
from .results import StepFailed
from .run_versions import engine_version, find_apptainer
from .time_left import LEAST_USEFUL_S, job_seconds_left, within_job

GREEN, YELLOW, RED = "green", "yellow", "red"
# File systems on which unpacking an image fails or takes very long.
SHARED_TYPES = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cephfs", "ceph", "panfs", "wekafs", "fuse.sshfs"}
)
USERNS_TODO = (
    "Build on another node or partition, or ask the administrator to allow unprivileged user namespaces "
    "or to install Apptainer with its setuid starter."
)
# A spec's commands, and a stranger's image when it is verified, run as this account.
ROOT_FOUND = "This process is root, and a build would run the spec's commands as root of the node."
ROOT_TODO = "Run the endpoint as an ordinary account; in a container or a CI job, add one and start it as that."


def point(name: str, state: str, found: str, todo: str = "", code: str = "") -> dict[str, str]:
    """One line of a report. ``code`` is the error code of a red one that a build must not begin with."""
    return {"name": name, "state": state, "found": found, "todo": todo, "code": code}


def prepare_node(site: dict[str, Any], least_s: float = LEAST_USEFUL_S) -> dict[str, Any]:
    """Make this process fit to build or run images: modules loaded, limits cut to the batch job's.

    ``least_s`` is the time that the step needs at least. Raises :class:`StepFailed` with the cause when the
    node cannot do it, or must not.
    """
    if is_real_root():
        raise StepFailed("apptainer_unusable", ROOT_FOUND, ROOT_TODO)
    load_modules(site)
    return within_job(site, least_s)


def require_node(site: dict[str, Any], work: str) -> None:
    """The cheap checks before a build. Raises :class:`StepFailed` for the first that is red."""
    for found in node_points(site, work):
        if found["state"] == RED:
            raise StepFailed(found["code"], found["found"], found["todo"])


def node_points(site: dict[str, Any], work: str) -> list[dict[str, str]]:
    """Engine, user namespaces, privileges, and the folders that a build uses; ``work`` is on shared storage."""
    return [engine_point(), *privilege_points(site["fakeroot"]), *folder_points(site, work)]


def engine_point() -> dict[str, str]:
    engine = find_apptainer()
    if not engine:
        return point(
            "engine",
            RED,
            "Neither apptainer nor singularity is installed on this node.",
            "Ask the endpoint's administrator to install Apptainer, or to name its module in the site profile.",
            "apptainer_missing",
        )
    version = engine_version()
    if version == "unknown":
        return point(
            "engine",
            RED,
            f"{engine} does not say its version, so it does not run on this node.",
            "Ask the endpoint's administrator to mend the installation.",
            "apptainer_unusable",
        )
    return point("engine", GREEN, f"{version} ({engine}).")


def privilege_points(fakeroot: str = "auto") -> list[dict[str, str]]:
    """Whether this account can become root in a build, and by which way; ``fakeroot`` is the site's mode."""
    if is_real_root():
        return [point("account", RED, ROOT_FOUND, ROOT_TODO, "apptainer_unusable")]
    setuid = has_setuid_starter()
    points = []
    off = userns_off()
    if off and not setuid:
        points.append(point("user namespaces", RED, off, USERNS_TODO, "apptainer_unusable"))
    elif off:
        points.append(
            point("user namespaces", YELLOW, f"{off} Apptainer's setuid starter is used instead.")
        )
    elif (restricted := read_line("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")) == "1":
        points.append(
            point(
                "user namespaces",
                YELLOW,
                f"AppArmor allows user namespaces to some programs only (restricted: {restricted}).",
                "If builds fail with 'setgroups: Permission denied', Apptainer must be a distribution's package.",
            )
        )
    else:
        points.append(point("user namespaces", GREEN, "Unprivileged user namespaces are allowed."))
    ids = subordinate_ids_point()
    points.append(ids)
    if no_new_privileges():
        # Apptainer uses the ids that it finds listed, and does not fall back when their helpers fail
        fails = (ids["state"] == GREEN and fakeroot != "ignore-subuid") or bool(setuid and off)
        points.append(
            point(
                "privileges",
                RED if fails else YELLOW,
                "This process may gain no privileges (no_new_privs), so setuid helpers such as newuidmap do "
                "not work"
                + (
                    ", and builds that use subordinate ids fail."
                    if fails
                    else "; builds do without them."
                ),
                "Set 'pam: {enable: true}' in the endpoint's config.yaml, run builds in batch jobs, or set "
                "'fakeroot' to 'ignore-subuid' in the site profile.",
                "apptainer_unusable",
            )
        )
    return points


def is_real_root() -> bool:
    """Whether this process is root on the node, not only in a user namespace."""
    if os.geteuid() != 0:
        return False
    fields = _read("/proc/self/uid_map").split()
    return len(fields) != 3 or int(fields[2]) >= 2**31


def userns_off() -> str:
    """Why user namespaces cannot be used; empty when the kernel's settings allow them."""
    if read_line("/proc/sys/user/max_user_namespaces") == "0":
        return "The kernel allows no user namespaces (user.max_user_namespaces is 0)."
    if read_line("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "The kernel allows user namespaces to root only (kernel.unprivileged_userns_clone is 0)."
    if not os.path.exists("/proc/self/ns/user"):
        return "The kernel was built without user namespaces."
    return ""


def has_setuid_starter() -> bool:
    """Whether an Apptainer on this node was installed with its setuid program."""
    engine = find_apptainer()
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(engine))) if engine else "/usr"
    for name in ("apptainer", "singularity"):
        starter = os.path.join(prefix, "libexec", name, "bin", "starter-suid")
        try:
            if os.stat(starter).st_mode & 0o4000:
                return True
        except OSError:
            continue
    return False


def no_new_privileges() -> bool:
    return "NoNewPrivs:\t1" in _read("/proc/self/status")


def subordinate_ids_point() -> dict[str, str]:
    try:
        names = [pwd.getpwuid(os.geteuid()).pw_name, str(os.geteuid())]
    except KeyError:
        names = [str(os.geteuid())]
    small = False
    for line in _read("/etc/subuid").splitlines():
        parts = line.split(":")
        if len(parts) == 3 and parts[0] in names and parts[2].isdigit():
            if int(parts[2]) >= 65536 and shutil.which("newuidmap"):
                return point("subordinate ids", GREEN, f"This account has {parts[2]} of them.")
            small = True
    return point(
        "subordinate ids",
        YELLOW,
        "This account's range in /etc/subuid cannot be used (below 65536, or no newuidmap)."
        if small
        else "This account has no range in /etc/subuid.",
        "Packages that make users or change owners may not install; an administrator can add a range to "
        "/etc/subuid and /etc/subgid, or install the 'fakeroot' command.",
    )


def folder_points(site: dict[str, Any], work: str) -> list[dict[str, str]]:
    """The folder in which builds unpack, and the one on shared storage."""
    points = []
    try:
        tmpdir = choose_tmpdir(site["tmpdir"], work, in_memory=site["unpack_in_memory"])
        points.append(_tmpdir_point(tmpdir, bool(site["tmpdir"])))
    except StepFailed as failure:
        points.append(point("temporary folder", RED, failure.message, failure.hint, failure.code))
    except OSError as problem:
        points.append(
            point(
                "temporary folder",
                RED,
                f"The site profile's 'tmpdir' {site['tmpdir']} cannot be made on this node: {problem.strerror}.",
                "Ask the endpoint's administrator to correct 'tmpdir'.",
                "site_invalid",
            )
        )
    return points


def _tmpdir_point(path: str, chosen: bool) -> dict[str, str]:
    kind, options = mount_of(path)
    free = free_bytes(path)
    where = f"{path} ({kind}, {free / GIB:.1f} GiB free)"
    todo = "Ask the endpoint's administrator for another 'tmpdir' in the site profile."
    if "noexec" in options:
        return point(
            "temporary folder",
            RED,
            f"Builds unpack in {where}, which is mounted 'noexec', so nothing in an image can run there.",
            todo,
            "apptainer_unusable",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        return point(
            "temporary folder", RED, f"Builds unpack in {where}, which this account cannot write.", todo,
            "site_invalid",
        )  # fmt: skip
    if free < GIB:
        return point(
            "temporary folder", RED, f"Builds unpack in {where}, which is too little for any image.", todo,
            "disk_full",
        )  # fmt: skip
    if kind in SHARED_TYPES:
        return point(
            "temporary folder",
            YELLOW,
            f"Builds unpack in {where}: a shared file system, on which unpacking is slow and may fail.",
            "Set 'tmpdir' in the site profile to a disk of the node, or to memory.",
        )
    return point(
        "temporary folder",
        GREEN,
        f"Builds unpack in {where}{', as the site says' if chosen else ''}.",
    )


def job_point(site: dict[str, Any]) -> dict[str, str]:
    left = job_seconds_left()
    if left is None:
        return point(
            "batch job", GREEN, "No end is set here: this node is not limited by a batch job."
        )
    cap = float(site["build_time_limit_s"])
    said = f"The batch job ends in {round(left)} seconds; a build may take {cap:g}."
    if left < cap:
        return point(
            "batch job", YELLOW, said, "Longer builds are stopped early; ask for a longer walltime."
        )
    return point("batch job", GREEN, said)


def mount_of(path: str) -> tuple[str, list[str]]:
    """Type and options of the file system that holds ``path``: ``("xfs", ["rw", "relatime"])``."""
    real = os.path.realpath(path)
    best, kind, options = "", "unknown", [""]
    for line in _read("/proc/self/mountinfo").splitlines():
        left, separator, right = line.partition(" - ")
        fields, more = left.split(), right.split()
        if not separator or len(fields) < 6 or len(more) < 1:
            continue
        # the kernel writes blanks in names as \040
        place = fields[4].replace("\\040", " ")
        inside = real == place or real.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, more[0]
            options = sorted(
                {*fields[5].split(","), *(more[2].split(",") if len(more) > 2 else [])}
            )
    return kind, options


def free_bytes(path: str) -> int:
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


def read_line(path: str) -> str:
    return _read(path).strip()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
