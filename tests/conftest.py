"""For every test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import settings

# No test asserts how long something took, and none depends on what an earlier run, perhaps of another
# user of the same checkout, has left behind.
settings.register_profile("cib-flows", deadline=None, database=None)
settings.load_profile("cib-flows")


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """``connect`` points the clients of this process at a home; the next test may start another."""
    with mock.patch.dict(os.environ):
        yield
