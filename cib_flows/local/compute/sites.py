"""Further endpoints of a home: sites of their own, with other roots and policies, on the same machine.

Each is a folder ``endpoints/NAME`` that holds what a home holds for its own endpoint (``endpoint/``,
``site.json``, ``runs/``), and ``endpoint.json`` with its id. The folders are read at each look-up, so that
an endpoint which another process declares, or takes away, is there or gone at once.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cib_flows.errors import NotFoundError, UsageError
from cib_flows.local.compute.engines import UserEndpoints
from cib_flows.local.endpoint_files import install_endpoint
from cib_flows.local.home import Home, write_aside
from cib_flows.local.transfer.collections import Collections

__all__ = ["SiteEndpoint", "SiteEndpoints", "add_site", "known_sites", "remove_site"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_FILE = "endpoint.json"


@dataclass(frozen=True)
class SiteEndpoint:
    """A further endpoint: its id, and the collection and folder that are its staging."""

    id: str
    name: str
    folder: str
    root: str
    collection_id: str
    staging: str

    @property
    def home(self) -> Home:
        """Its folder; laid out as a home, without a server of its own."""
        return Home(self.folder)


def known_sites(home: Home) -> list[SiteEndpoint]:
    """The further endpoints of ``home``, by name."""
    found = []
    for path in sorted(_place(home).glob(f"*/{_FILE}")):
        try:
            found.append(SiteEndpoint(**json.loads(path.read_text("utf-8"))))
        except (OSError, ValueError, TypeError):
            continue  # half made, or taken away meanwhile
    return found


def add_site(home: Home, name: str, site: Mapping[str, Any] | None = None) -> SiteEndpoint:
    """Declare the endpoint ``name``, or give it the site profile ``site`` anew.

    Its root and its staging collection are its own, wherever ``site`` does not say otherwise. Raises
    :class:`UsageError` for a name or a root that cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name an endpoint; use lower-case letters, digits, '_' and '-', at most 64."
        )
    place = Home(_place(home) / name)
    for folder in (place.endpoint_dir, place.runs_dir, place.staging_dir):
        folder.mkdir(parents=True, exist_ok=True)
    given = dict(site or {})
    staging = given.get("staging")
    if not isinstance(staging, dict):
        collection = Collections.of_home(home).add(f"staging-{name}", place.staging_dir)
        staging = {"collection_id": collection.id, "collection_path": "/", "path": collection.path}
    known = {entry.name: entry for entry in known_sites(home)}.get(name)
    profile: dict[str, Any] = {
        "name": name,
        "root": str(place.path / "containers"),
        "unpack_in_memory": True,
        **given,
        "staging": staging,
    }
    Path(profile["root"]).mkdir(parents=True, exist_ok=True)
    install_endpoint(place, profile)
    write_aside(place.site_path, json.dumps(profile, indent=2) + "\n")
    _copy_allow_list(home, place)
    added = SiteEndpoint(
        id=known.id if known else str(uuid.uuid4()),
        name=name,
        folder=str(place.path),
        root=str(profile["root"]),
        collection_id=str(staging.get("collection_id")),
        staging=str(staging.get("path")),
    )
    write_aside(place.path / _FILE, json.dumps(asdict(added), indent=2) + "\n")
    return added


def remove_site(home: Home, name: str) -> SiteEndpoint:
    """Take the endpoint ``name`` off; its root and staging folder stay. Raises :class:`NotFoundError`."""
    for entry in known_sites(home):
        if entry.name == name:
            (Path(entry.folder) / _FILE).unlink(missing_ok=True)
            return entry
    raise NotFoundError(f"This home has no endpoint {name!r}.")


def _place(home: Home) -> Path:
    return home.path / "endpoints"


def _copy_allow_list(home: Home, place: Home) -> None:
    """What the home's own endpoint allows, this one does from the beginning."""
    listed = home.endpoint_dir / "allowed_functions.yaml"
    if listed.is_file():
        shutil.copyfile(listed, place.endpoint_dir / listed.name)


class SiteEndpoints:
    """The engines of the further endpoints, made as they are needed.

    The callbacks are those of :class:`UserEndpoints`.
    """

    def __init__(
        self,
        home: Home,
        identity_id: str,
        on_result: Callable[[str, str], None],
        on_lost: Callable[[str, str], None],
        on_taken: Callable[[str, str], None],
    ) -> None:
        self._home = home
        self._identity_id = identity_id
        self._callbacks = (on_result, on_lost, on_taken)
        self._engines: dict[str, UserEndpoints] = {}

    def find(self, endpoint_id: str) -> SiteEndpoint | None:
        """The endpoint of that id, as long as it is declared."""
        return next((known for known in known_sites(self._home) if known.id == endpoint_id), None)

    def all(self) -> list[SiteEndpoint]:
        return known_sites(self._home)

    def engines(self, endpoint_id: str) -> UserEndpoints | None:
        """What runs its tasks; None for an id that is no further endpoint's."""
        found = self.find(endpoint_id)
        if found is None:
            return None
        engines = self._engines.get(endpoint_id)
        if engines is None:
            engines = UserEndpoints(found.home, endpoint_id, self._identity_id, *self._callbacks)
            self._engines[endpoint_id] = engines
        return engines

    async def reattach(self) -> dict[str, set[str]]:
        """As :meth:`UserEndpoints.reattach`, for all of them."""
        alive: dict[str, set[str]] = {}
        for known in self.all():
            engines = self.engines(known.id)
            if engines is not None:
                engines.remove_old_run_dirs()
                alive |= await engines.reattach()
        return alive

    async def stop(self) -> None:
        for engines in self._engines.values():
            await engines.stop()
