"""From a spec to a run, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cib_flows.deployment import ensure_deployed
from cib_flows.deployment_record import Deployment
from cib_flows.profiles import Globus, connect
from cib_flows.runs import BuildRun
from cib_flows.spec import ContainerSpec

__all__ = ["ContainerBuilder"]


class ContainerBuilder:
    """Builds containers on one Globus.

    ``profile`` and ``home`` choose it (see ``profiles.connect``), or ``globus`` is one already
    connected. ``build_endpoint`` and ``run_endpoint`` are used for specs that name none; without
    them the deployment's are.
    """

    def __init__(
        self,
        profile: str | None = None,
        home: str | Path | None = None,
        *,
        globus: Globus | None = None,
        build_endpoint: str | None = None,
        run_endpoint: str | None = None,
    ) -> None:
        self.globus = globus or connect(profile, home)
        if build_endpoint is not None and self.globus.build_endpoint is None:
            # A first deployment needs an endpoint, and the one at hand is the best there is.
            self.globus.build_endpoint = build_endpoint
        self._endpoints = {"build_endpoint": build_endpoint, "run_endpoint": run_endpoint}

    def deployment(self, say: Callable[[str], None] | None = None) -> Deployment:
        """What runs are started of; deployed first, or brought up to date, where needed.

        ``say`` is told each thing that was changed.
        """
        return ensure_deployed(self.globus, say)

    def build(
        self,
        spec: ContainerSpec | Mapping[str, Any] | str | Path,
        label: str | None = None,
        *,
        force: bool | None = None,
        tags: Sequence[str] = (),
        say: Callable[[str], None] | None = None,
    ) -> BuildRun:
        """Starts a build and returns at once; ``.result()`` of what it returns waits for the
        container.

        ``spec`` may be a file's path or a mapping with the spec's fields. ``force`` builds even if
        an identical image exists.

        Raises ``SpecError`` for a bad spec before anything is asked of Globus, ``ServiceError``
        when a service refuses.
        """
        read = self._read(spec, force)
        return BuildRun.start(self.globus, self.deployment(say), read, label, tags)

    def _read(
        self, spec: ContainerSpec | Mapping[str, Any] | str | Path, force: bool | None
    ) -> ContainerSpec:
        if isinstance(spec, (str, Path)):
            spec = ContainerSpec.from_file(spec)
        elif isinstance(spec, Mapping):
            spec = ContainerSpec.from_dict(spec)
        fields = spec.to_dict()
        changed = {
            name: value
            for name, value in {**self._endpoints, "force": force}.items()
            if value is not None and (name == "force" or not fields.get(name))
        }
        return ContainerSpec.from_dict({**fields, **changed}) if changed else spec
