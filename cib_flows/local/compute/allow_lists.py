"""The only functions that an endpoint's ``config.yaml`` allows.

That list is the endpoint's registration: the service shows it and refuses everything else, whatever
the profile. A list in the template binds the profiles that include it; the service does not know of
that one, and the user endpoint process obeys it.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from cib_flows.local.compute.wire import ComputeError
from cib_flows.local.endpoint_files import CONFIG

__all__ = ["registered_allow_list"]


def registered_allow_list(folder: Path) -> list[str] | None:
    """The function ids in the ``config.yaml`` of an endpoint's folder; None: all are allowed.

    Read each time, since an administrator may edit the file. Raises :class:`ComputeError` (422) for
    a file or a list that makes no sense: nothing may run then.
    """
    try:
        text = (folder / CONFIG).read_text("utf-8")
    except OSError:
        return None
    if "allowed_functions" not in text:
        return None
    import yaml  # only here: most endpoints have no such list

    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise _unusable("is not YAML") from problem
    allowed = config.get("allowed_functions") if isinstance(config, dict) else None
    if allowed is None:
        return None
    if not isinstance(allowed, list):
        raise _unusable("allowed_functions must be a list of function ids")
    return [_function_id(item) for item in allowed]


def _function_id(item: Any) -> str:
    try:
        return str(uuid.UUID(str(item)))
    except ValueError:
        raise _unusable(f"allowed_functions: {item!r} is not a function id") from None


def _unusable(sentence: str) -> ComputeError:
    return ComputeError(422, "SEMANTICALLY_INVALID", f"The endpoint's {CONFIG}: {sentence}")
