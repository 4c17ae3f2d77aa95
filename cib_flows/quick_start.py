"""What keeps a program from waiting, while it starts, for what it does not need."""

from __future__ import annotations

import sys

__all__ = ["load_jsonschema"]

# A package that jsonschema loads for its checks of formats, where another brought it along; it reads a whole
# grammar of addresses, for a second or two, and no format is checked here.
LEFT_OUT = "rfc3987_syntax"


def load_jsonschema() -> None:
    """Import ``jsonschema`` without that package, which stays free to be imported by others.

    Only for a program's own process: what else uses ``jsonschema`` there does not check such formats either.
    """
    if "jsonschema" in sys.modules or LEFT_OUT in sys.modules:
        return
    sys.modules[LEFT_OUT] = None  # type: ignore[assignment]
    try:
        import jsonschema  # noqa: F401
    finally:
        del sys.modules[LEFT_OUT]
