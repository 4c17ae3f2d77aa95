"""What a container engine is told when it builds, and SingularityCE where its words differ from Apptainer's."""

from __future__ import annotations

import os
import shutil

from .node_check import GREEN, subordinate_ids_point

# %post is run by an engine inside the engine, which reads these as its own options.
BUILD_ISOLATION = {
    # else %post shares a table of processes with the outer one, and through /proc/1/root reaches all files of the
    # account, private ones too
    "APPTAINER_UNSHARE_PID": "1",
    # the account's other programs have shared memory and queues
    "APPTAINER_UNSHARE_IPC": "1",
    # the node's /dev holds the account's terminals, and /dev/shm, where other builds unpack; and below the /tmp
    # that a build is given lies the node's own, which root of a namespace can uncover
    "APPTAINER_CONTAIN": "1",
    # the account's control groups, by which its other processes can be stopped
    "APPTAINER_NO_MOUNT": "sys",
}
# Apptainer's own, each with whether a value follows it.
UNKNOWN_TO_SINGULARITY = {
    "--mksquashfs-args": True,
    "--ignore-subuid": False,
    "--ignore-fakeroot-command": False,
}


def is_singularity(version: str) -> bool:
    """Whether ``version``, as :func:`engine_version` gives it, is of SingularityCE or SingularityPRO."""
    return version.lower().startswith("singularity")


def engine_command(version: str, command: list[str]) -> list[str]:
    """``command`` as that engine takes it. SingularityCE does not become root in a build by itself."""
    if not is_singularity(version):
        return command
    said: list[str] = []
    skip = False
    for word in command:
        if skip:
            skip = False
        elif word in UNKNOWN_TO_SINGULARITY:
            skip = UNKNOWN_TO_SINGULARITY[word]
        else:
            said.append(word)
    asks_for_root = len(said) > 1 and said[1] == "build" and "--fakeroot" not in said
    if asks_for_root and os.geteuid() != 0 and not _can_only_proot():
        said.insert(2, "--fakeroot")
    return said


def _can_only_proot() -> bool:
    """Without the option, and without ids for it, SingularityCE takes the proot command where there is one."""
    return subordinate_ids_point()["state"] != GREEN and bool(shutil.which("proot"))


def engine_environment(version: str, environment: dict[str, str]) -> dict[str, str]:
    """``environment`` with the engine's variables under the names that it reads."""
    if not is_singularity(version):
        return environment
    return {
        key.replace("APPTAINER", "SINGULARITY", 1) if key.startswith("APPTAINER") else key: value
        for key, value in environment.items()
    }
