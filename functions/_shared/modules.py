"""The site's environment modules, for a function that runs programs: once for each worker process."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from .results import StepFailed, shorten

MODULES_LOADED = "CIB_MODULES_LOADED"
MODULES_TIMEOUT_S = 120
# A login shell, since that is where sites define 'module'. Arguments: the number of folders, the folders, the
# modules. The listing begins after a mark: a module may print whatever it likes.
MODULES_SCRIPT = """
command -v module >/dev/null || exit 97
count=$1; shift
while [ "$count" -gt 0 ]; do module use "$1" >&2 || exit 98; shift; count=$((count - 1)); done
for name in "$@"; do module load "$name" >&2 || exit 98; done
printf '\\0cib-environment\\0'
exec env -0
"""
# What the shell itself sets, and what is not a module's to change.
KEPT_AS_THEY_ARE = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "HOME", "USER", "LOGNAME", "SHELL"})


def load_modules(site: dict[str, Any]) -> None:
    """Bring what the site's ``modules`` set into this process's environment.

    Raises :class:`StepFailed` ``site_invalid`` when a module cannot be loaded.
    """
    wanted = [*site["module_paths"], "--", *site["modules"]]
    if not site["modules"] or os.environ.get(MODULES_LOADED) == "\n".join(wanted):
        return
    hint = "Ask the endpoint's administrator to correct 'modules' in the site profile."
    try:
        done = subprocess.run(
            ["bash", "-l", "-c", MODULES_SCRIPT, "modules", str(len(site["module_paths"])),
             *site["module_paths"], *site["modules"]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MODULES_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise StepFailed(
            "site_invalid", f"The site's modules cannot be loaded on this node: {problem}.", hint
        ) from None
    if done.returncode == 97:
        raise StepFailed(
            "site_invalid",
            "The site profile asks for modules, and this node has no 'module' command.",
            hint,
        )
    listing = done.stdout.partition(b"\0cib-environment\0")[2]
    if done.returncode != 0 or not listing:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        telling = next((line for line in said if "error" in line.lower()), said[-1] if said else "")
        raise StepFailed(
            "site_invalid",
            f"The site's modules {', '.join(site['modules'])} cannot be loaded on this node"
            f"{': ' + shorten(telling, 200) if telling else ''}.",
            hint,
        )
    for entry in listing.split(b"\0"):
        name, equals, value = os.fsdecode(entry).partition("=")
        if equals and name not in KEPT_AS_THEY_ARE and not name.startswith("BASH_FUNC_"):
            os.environ[name] = value
    os.environ[MODULES_LOADED] = "\n".join(wanted)
