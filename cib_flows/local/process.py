"""The environment that this package's own child processes get."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["python_environment"]

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


def python_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """``inherited``, with the folder this package was imported from on Python's path.

    An installed package needs no help: naming site-packages there would let it shadow the standard
    library.
    """
    environment = dict(inherited)
    if _PACKAGE_ROOT.name not in ("site-packages", "dist-packages"):
        search = [str(_PACKAGE_ROOT), *environment.get("PYTHONPATH", "").split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, search)))
    return environment
