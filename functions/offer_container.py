"""Makes ready what belongs to a registered container, so that Globus Transfer can bring it to other sites."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import nullcontext
from typing import Any

from ._shared.catalogue import Catalogue, require_text, split_name
from ._shared.deliveries import (
    DELIVERED_ENDINGS,
    clear_places,
    collection_folder,
    new_place,
    place_path,
    require_wanted,
    sweep_places,
)
from ._shared.files import sha256_file
from ._shared.holds import leased
from ._shared.results import StepFailed, run_step
from ._shared.run_folder import RunFolder
from ._shared.site import load_site
from ._shared.trust import SUMS_ENDING, check_trust, companion, seal


def offer_container(run_id: str, container: str, name_tag: str | None = None) -> dict[str, Any]:
    """First step of a publication, at the site that has the ``container`` (a name, name:tag or container id).

    Checks every byte and the site's own policy, so that nothing damaged travels. Where the site's root is part
    of a collection, nothing is copied; otherwise image, record, lock, SBOM, provenance and lists of sums get
    second names in the run's staging folder, or are copied there. ``name_tag`` is what the destinations shall
    call it, checked here for all of them.

    Returns ``container_id``, ``name``, ``tag``, ``sha256``, ``bytes``, ``sums_sha256`` (of the list that the
    others are checked by), ``files``, and ``collection_id`` and ``folder``, where Transfer finds them.
    """
    return run_step("offer_container", lambda: _offer(run_id, container, name_tag))


def _offer(run_id: str, container: str, name_tag: str | None) -> dict[str, Any]:
    site = load_site()
    folder = RunFolder(site["root"], run_id)
    require_text("container", container)
    catalogue, record = _found(site, container)
    is_own = catalogue.root == site["root"]
    name, tag = _asked_name(container, record)
    if name_tag:
        split_name(name_tag, name)
    sha256 = str(record["sha256"])
    sweep_places(site)
    # a shared catalogue is only read: nothing says there that the image is in use
    lease = leased(catalogue, str(record["name"]), sha256, "offer_container")
    with lease if is_own else nullcontext():
        check_trust(site, catalogue, record)
        sums = companion(catalogue, record["name"], sha256, SUMS_ENDING)
        if not os.path.exists(sums):
            seal(catalogue, record["name"], sha256, None)  # of an older version's making
        sources = [companion(catalogue, record["name"], sha256, end) for end in DELIVERED_ENDINGS]
        sources = [path for path in sources if os.path.exists(path)]
        collection_id, place = _on_collection(site, folder, sources)
    if is_own:
        catalogue.note("offered", record, run_id=run_id)
    return {
        "container_id": record["container_id"],
        "name": name,
        "tag": tag,
        "sha256": sha256,
        "bytes": os.path.getsize(sources[0]),
        "sums_sha256": sha256_file(sums),
        "files": [os.path.basename(path) for path in sources],
        "collection_id": collection_id,
        "folder": place,
    }


def _found(site: dict[str, Any], container: str) -> tuple[Catalogue, dict[str, Any]]:
    """The first catalogue that knows the container, one's own before those that are shared; and its record."""
    missing: StepFailed | None = None
    for root in (site["root"], *site["shared_roots"]):
        catalogue = Catalogue(root)
        try:
            return catalogue, catalogue.find(container)
        except StepFailed as failure:
            missing = missing or failure
    assert missing is not None
    raise missing


def _asked_name(container: str, record: dict[str, Any]) -> tuple[str, str]:
    """The name by which the container was asked for; the one it was made under, for an id."""
    given, _, tag = container.partition(":")
    if tag or not str(record["container_id"]).startswith(container):
        return given, tag or "latest"
    return str(record["name"]), str(record.get("first_tag") or "latest")


def _on_collection(site: dict[str, Any], folder: RunFolder, sources: list[str]) -> tuple[str, str]:
    """``(collection id, folder there)`` in which Transfer finds the files."""
    root = site["root_collection"]
    if root and sources[0].startswith(site["root"] + os.sep):
        inner = os.path.relpath(os.path.dirname(sources[0]), site["root"])
        return root["collection_id"], f"{root['collection_path'].rstrip('/')}/{inner}/"
    place = new_place(site, folder, "offer")
    path = place_path(site, folder, place)
    try:
        for source in sources:
            _second_name(source, os.path.join(path, os.path.basename(source)))
    except BaseException:
        clear_places(site, folder, ("offer",))
        raise
    # nothing is to be put into it or taken out until it is removed
    os.chmod(path, 0o500)
    require_wanted(site, folder)
    return site["staging"]["collection_id"], collection_folder(site, folder, place)


def _second_name(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (
            errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES,
        ):  # fmt: skip
            raise
        shutil.copyfile(source, target)
