"""Folders declared as collections, and the only way from a collection's path to a file's.

The declarations are one JSON file in the home, read anew at each look-up, so that a collection
added by another process is there at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cib_flows.errors import UsageError
from cib_flows.local.home import Home, read_declared, write_aside
from cib_flows.local.transfer.errors import TransferError

__all__ = ["Collection", "Collections", "is_inside"]

STAGING = "staging"


@dataclass(frozen=True)
class Collection:
    """A folder that Transfer serves; ``path`` is absolute. With ``data_access`` a flow may touch it
    only for those who consented to that, as on a mapped collection of a data centre."""

    id: str
    name: str
    path: str
    data_access: bool = False

    def document(self) -> dict[str, Any]:
        fields = asdict(self)
        if not self.data_access:
            del fields["data_access"]
        return fields

    def locate(self, path: str) -> Path:
        """The file that a path of this collection names, whether or not it exists.

        Raises :class:`TransferError` for a path that leaves the collection, by ``..`` or by a symbolic link.
        """
        if "\0" in path:
            raise TransferError.bad_request("A path may not hold a null character.")
        inside = path.removeprefix("/~") if path == "/~" or path.startswith("/~/") else path
        if inside and not inside.startswith("/"):
            raise TransferError.bad_request(
                f"The path {path!r} must be absolute: begin it with '/'."
            )
        parts = [part for part in inside.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self._denied(path)
        located = Path(self.path, *parts)
        if not is_inside(located, self.path):
            raise self._denied(path)
        return located

    def _denied(self, path: str) -> TransferError:
        return TransferError(
            403,
            "EndpointPermissionDenied",
            f"Denied by endpoint, Error (path)\nEndpoint: {self.name} ({self.id})\n"
            f"Message: Path not allowed: {path}",
        )


def is_inside(path: Path, root: str) -> bool:
    """Whether ``path`` is ``root`` or below it once every symbolic link is followed."""
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    return os.path.commonpath([real, real_root]) == real_root


class Collections:
    """The collections of one home: the built-in ``staging`` one, and those that were declared."""

    def __init__(self, declarations: Path, staging: Collection) -> None:
        self._declarations = declarations
        self._staging = staging

    @classmethod
    def of_home(cls, home: Home) -> Collections:
        staging_id = home.client().staging_collection_id
        folder = str(home.staging_dir)
        staging = home.site().get("staging") if home.site_path.exists() else None
        if (
            isinstance(staging, dict)
            and staging.get("collection_id") == staging_id
            and staging.get("collection_path") in ("/", None)
            and isinstance(staging.get("path"), str)
        ):
            folder = staging["path"]
        return cls(home.path / "collections.json", Collection(staging_id, STAGING, folder))

    def all(self) -> list[Collection]:
        return [self._staging, *self._declared()]

    def get(self, collection_id: str) -> Collection:
        """Raises :class:`TransferError` (404) for an id that is not declared here."""
        for collection in self.all():
            if collection.id == collection_id.lower():
                return collection
        raise TransferError(
            404, "EndpointNotFound", f"No such endpoint '{collection_id}' on this local Globus"
        )

    def add(self, name: str, folder: Path | str, data_access: bool = False) -> Collection:
        """Declare ``folder``. The same name and folder again is the same collection; raises
        :class:`UsageError` for a name that stands for another folder, or something that is no
        folder."""
        path = os.path.realpath(folder)
        if not os.path.isdir(path):
            raise UsageError(f"{folder} is not a folder.")
        lock = os.open(
            self._declarations.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for known in self.all():
                if known.name != name:
                    continue
                if os.path.realpath(known.path) == path and known.data_access == data_access:
                    return known
                consent = " that asks for a consent" if known.data_access else ""
                raise UsageError(
                    f"There is already a collection {name!r}{consent}, for {known.path}; choose"
                    " another name."
                )
            added = Collection(str(uuid.uuid4()), name, path, data_access)
            entries = [item.document() for item in [*self._declared(), added]]
            write_aside(self._declarations, json.dumps(entries, indent=2) + "\n")
        finally:
            os.close(lock)
        return added

    def _declared(self) -> list[Collection]:
        return read_declared(self._declarations, Collection)
