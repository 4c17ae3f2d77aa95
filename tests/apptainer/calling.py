"""A function in an image, asked for as a flow does: nobody looks at the image before, only its path is given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

from cib_flows.profiles import connect
from cib_flows.tasks import call_function

from .conftest import LocalGlobus

ANSWER = "def answer():\n    return {'answer': 42}\n"


def called_in(
    globus: LocalGlobus,
    endpoint_id: str,
    image: str | Path,
    source: str = ANSWER,
    function: str = "answer",
) -> dict[str, Any]:
    """What ``function`` of ``source``, an object, returns from a worker in the image. Raises as ``call_function``."""
    with mock.patch.dict(os.environ):
        for variable in ("GLOBUS_SDK_ENVIRONMENT", "CIB_FLOWS_HOME"):
            os.environ.pop(variable, None)
        there = connect(home=globus.home)
        registered = there.compute.register_function(
            {"function_name": function, "function_code": source, "serialized": False}
        )
        registered_id, config = str(registered["function_uuid"]), {"container_uri": str(image)}
        return call_function(there, function, registered_id, endpoint_id, config, {}, 300)
