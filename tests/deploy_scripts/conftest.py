"""The scripts' Python helpers stand outside every package; load them by their files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

LIB = Path(__file__).resolve().parents[2] / "deploy_scripts" / "lib"


@pytest.fixture(scope="session")
def load_helper() -> Callable[[str], ModuleType]:
    """A function that imports `deploy_scripts/lib/<name>.py`."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"deploy_lib_{name}", LIB / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def common_sh() -> Path:
    """The shell functions that every script sources."""
    return LIB / "common.sh"
