"""The build as a tool of Gladier: ``gladier_tools = ["cib_flows.gladier.BuildContainer", …]``.

Needs Gladier (``pip install "cib-flows[gladier]"``) and a deployment (``cib-flows deploy``), whose
functions the tool's states call.
"""

from __future__ import annotations

import re
from typing import Any

from cib_flows.errors import UsageError
from cib_flows.flow import contained
from cib_flows.flow_parts import flow_part, recorded_deployment

try:
    from gladier import GladierBaseTool
except ImportError as missing:
    raise ImportError(
        f'Gladier is not installed here ({missing}); pip install "cib-flows[gladier]" does it.'
    ) from missing

__all__ = ["BuildContainer"]

ALIAS = re.compile(r"[A-Za-z0-9_]{1,40}")


class BuildContainer(GladierBaseTool):  # type: ignore[misc]
    """Builds the container that ``container_spec`` describes, unless an identical one is
    registered.

    The container is at ``$.container`` for the tools that follow; a Compute tool of version 3 runs
    in it with the modifiers ``endpoint_id: $.container.executor.endpoint_id`` and
    ``user_endpoint_config: $.container.executor.user_endpoint_config``. With an alias, as in
    ``cib_flows.gladier.BuildContainer:Second``, the input is ``second_container_spec`` and the
    container at ``$.second_container``.

    Raises ``NotDeployedError`` when its flow definition is asked for and nothing is deployed.
    """

    required_input = ["container_spec"]  # noqa: RUF012 - class attributes are how Gladier is told
    flow_input: dict[str, Any] = {}  # noqa: RUF012
    # The build's functions are texts that the deployment registered; Gladier would pickle objects.
    compute_functions: list[Any] = []  # noqa: RUF012

    @property
    def flow_definition(self) -> dict[str, Any]:
        """The states of the build, with the functions and endpoints of the deployment."""
        return contained(
            flow_part(recorded_deployment()),
            f"$.input.{self._named('container_spec')}",
            self._prefix,
            f"$.{self._named('container')}",
        )

    def get_flow_definition(self) -> dict[str, Any]:
        """The same, under the alias; Gladier itself would leave out the ways of Choice and
        Catch."""
        return self.flow_definition

    def get_flow_transition_states(self) -> list[str]:
        """Where a chain of tools goes on; the other ends are failures."""
        return [f"{self._prefix}Tidy"]

    @property
    def _prefix(self) -> str:
        if self.alias and not ALIAS.fullmatch(self.alias):
            raise UsageError(
                f"The alias {self.alias!r} must hold at most 40 letters, digits and underscores."
            )
        return f"Build{self.alias or ''}"

    def _named(self, variable: str) -> str:
        """A field's name under the alias, as Gladier names the inputs."""
        if not self.alias:
            return variable
        renamed: str = self.alias_renamer.rename_variable(variable, self)
        return renamed
