"""cib-flows: a container spec goes in, a proven image that Globus Compute can run functions in comes out.

    from cib_flows import ContainerBuilder, RunFailedError

    run = ContainerBuilder().build({"name": "numbers", "base": {"image": "python:3.11-slim"}, "pip": ["numpy"]})
    try:
        container = run.result()
    except RunFailedError as error:
        print(error.message, error.hint)

``ContainerBuilder`` starts builds, ``BuildRun`` is one of them, ``Container`` is what comes of it and runs
functions and commands, ``Catalogue`` manages what is registered. Every error is a ``CibFlowsError``, of which
``cib_flows.errors`` has the whole tree. docs/python.md tells more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cib_flows._version import __version__

if TYPE_CHECKING:
    from cib_flows.builder import ContainerBuilder
    from cib_flows.catalogue import Catalogue
    from cib_flows.compat import build_and_register_container
    from cib_flows.containers import Container
    from cib_flows.errors import (
        CibFlowsError,
        NotFoundError,
        RunFailedError,
        ServiceError,
        SpecError,
    )
    from cib_flows.profiles import connect
    from cib_flows.runs import BuildRun
    from cib_flows.spec import ContainerSpec

__all__ = [
    "BuildRun",
    "Catalogue",
    "CibFlowsError",
    "Container",
    "ContainerBuilder",
    "ContainerSpec",
    "NotFoundError",
    "RunFailedError",
    "ServiceError",
    "SpecError",
    "__version__",
    "build_and_register_container",
    "connect",
]

# The SDKs take half a second to import; whoever wants only a spec does not pay for them.
_PLACES = {
    "BuildRun": "cib_flows.runs",
    "Catalogue": "cib_flows.catalogue",
    "CibFlowsError": "cib_flows.errors",
    "Container": "cib_flows.containers",
    "ContainerBuilder": "cib_flows.builder",
    "ContainerSpec": "cib_flows.spec",
    "NotFoundError": "cib_flows.errors",
    "RunFailedError": "cib_flows.errors",
    "ServiceError": "cib_flows.errors",
    "SpecError": "cib_flows.errors",
    "build_and_register_container": "cib_flows.compat",
    "connect": "cib_flows.profiles",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
