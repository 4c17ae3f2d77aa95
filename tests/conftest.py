"""For every test."""

from __future__ import annotations

from hypothesis import settings

# No test asserts how long something took, and none depends on what an earlier run, perhaps of another
# user of the same checkout, has left behind.
settings.register_profile("cib-flows", deadline=None, database=None)
settings.load_profile("cib-flows")
