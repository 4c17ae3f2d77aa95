"""Sites by name: which endpoint, and which collection, a word such as ``delta`` stands for.

A YAML or JSON file has them, ``CIB_FLOWS_SITES`` or else ``sites.yaml`` beside the deployment records::

    delta:
      endpoint: 0a3f…
      collection: 7e12…      # optional, like the next two
      path: /scratch/cib/
      run_endpoint: 51c9…

A name that is not in the file is looked up among the Compute endpoints that one may use.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cib_flows.errors import NotFoundError, UsageError
from cib_flows.profiles import Globus
from cib_flows.services import explained

__all__ = ["Site", "find_site", "read_sites", "sites_path"]

FIELDS = ("endpoint", "collection", "path", "run_endpoint")
EXAMPLE = (
    "Each site is a name with 'endpoint', and optionally 'collection', 'path' and 'run_endpoint'."
)


@dataclass(frozen=True)
class Site:
    """A place that containers are published to. ``collection_id`` and ``path`` say where files may go
    on their way there; without them the endpoint's own site profile does.
    """

    name: str
    endpoint_id: str
    collection_id: str | None = None
    path: str | None = None
    run_endpoint: str | None = None

    def destination(self) -> dict[str, Any]:
        """The site as the publish flow's input has it."""
        found: dict[str, Any] = {"name": self.name, "endpoint": self.endpoint_id}
        if self.run_endpoint:
            found["run_endpoint"] = self.run_endpoint
        if self.collection_id:
            found["collection"] = {"id": self.collection_id}
            if self.path:
                found["collection"]["path"] = self.path
        return found


def sites_path() -> Path:
    """The file that names sites; it need not exist."""
    named = os.environ.get("CIB_FLOWS_SITES")
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "cib-flows"
    return Path(named).expanduser() if named else (folder / "sites.yaml").expanduser()


def read_sites(path: Path | None = None) -> dict[str, Site]:
    """The sites of a file, by name; none where there is no file. Raises ``UsageError`` for one that is
    not such a file.
    """
    import yaml

    place = path or sites_path()
    try:
        given = yaml.safe_load(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path is not None:
            raise UsageError(f"There is no file {path} with sites.", hint=EXAMPLE) from None
        return {}
    except (OSError, ValueError, yaml.YAMLError) as problem:
        said = str(problem).splitlines()[0]
        raise UsageError(f"The file of sites {place} cannot be read: {said}.") from None
    if not isinstance(given or {}, Mapping):
        raise UsageError(f"The file of sites {place} does not hold names of sites.", hint=EXAMPLE)
    return {str(name): _site(place, str(name), entry) for name, entry in (given or {}).items()}


def _site(place: Path, name: str, entry: Any) -> Site:
    if not isinstance(entry, Mapping) or "endpoint" not in entry or set(entry) - set(FIELDS):
        raise UsageError(f"The site {name!r} in {place} is not a site.", hint=EXAMPLE)
    ids = {
        key: _uuid(entry.get(key), f"'{key}' of the site {name!r} in {place}")
        for key in ("endpoint", "collection", "run_endpoint")
    }
    path = entry.get("path")
    if path is not None and (ids["collection"] is None or not str(path).startswith("/")):
        raise UsageError(
            f"'path' of the site {name!r} in {place} must begin with '/', and needs a 'collection'."
        )
    endpoint = ids["endpoint"]
    assert endpoint is not None
    return Site(name, endpoint, ids["collection"], path and str(path), ids["run_endpoint"])


def _uuid(value: Any, what: str) -> str | None:
    if value is None and "'endpoint'" not in what:
        return None
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise UsageError(f"{what} is {str(value)[:60]!r}, which is not a UUID.") from None


def find_site(globus: Globus, word: str, known: Mapping[str, Site]) -> Site:
    """The site that ``word`` names: one of ``known``, an endpoint's UUID, or the name of an endpoint.

    Raises ``NotFoundError`` when there is none, ``UsageError`` when several have that name.
    """
    if word in known:
        return known[word]
    try:
        return Site(word, str(uuid.UUID(word)))
    except ValueError:
        pass
    globus.compute_pacer.wait()
    with explained("list the endpoints"):
        listed: Any = globus.compute_v2.get_endpoints(role="any").data
    names = ("name", "display_name")
    found = sorted(
        {
            str(entry.get("uuid"))
            for entry in listed
            if isinstance(entry, Mapping) and word in [entry.get(key) for key in names]
        }
    )
    if len(found) == 1:
        return Site(word, found[0])
    if found:
        raise UsageError(
            f"{len(found)} endpoints are called {word!r}: {', '.join(found)}.",
            hint=f"Give one's UUID, or name it in {sites_path()}.",
        )
    raise NotFoundError(
        f"There is no site {word!r}: neither in {sites_path()} nor among your endpoints.",
        hint=EXAMPLE,
    )
