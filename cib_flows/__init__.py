"""cib-flows: a container spec goes in, a proven image that Globus Compute can run functions in comes out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cib_flows._version import __version__

if TYPE_CHECKING:
    from cib_flows.builder import ContainerBuilder
    from cib_flows.compat import build_and_register_container
    from cib_flows.containers import Container
    from cib_flows.runs import BuildRun
    from cib_flows.spec import ContainerSpec

__all__ = [
    "BuildRun",
    "Container",
    "ContainerBuilder",
    "ContainerSpec",
    "__version__",
    "build_and_register_container",
]

# The SDKs take half a second to import; whoever wants only a spec does not pay for them.
_PLACES = {
    "BuildRun": "cib_flows.runs",
    "Container": "cib_flows.containers",
    "ContainerBuilder": "cib_flows.builder",
    "ContainerSpec": "cib_flows.spec",
    "build_and_register_container": "cib_flows.compat",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
