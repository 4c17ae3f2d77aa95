"""Checks the whole spec, pins what it names, and writes the recipe; answers at once when the image exists."""

from __future__ import annotations

import datetime
import os
import secrets
from typing import Any

from ._shared.catalogue import Catalogue
from ._shared.files import sha256_file, sha256_text, write_text
from ._shared.git import resolve_ref
from ._shared.grammars import LIBRARY_REFERENCE
from ._shared.identity import build_digest, spec_digest
from ._shared.lock import locked_base
from ._shared.lock_files import take_lock
from ._shared.machine_check import planned_machine
from ._shared.modules import load_modules
from ._shared.network import check_host
from ._shared.recipe import render_text, wants_payload
from ._shared.registry import resolve
from ._shared.results import StepFailed, run_step
from ._shared.run_folder import RunFolder
from ._shared.run_versions import engine_version, machine, worker_versions
from ._shared.site import load_site
from ._shared.spec_check import FILE_BOOTSTRAPS, check_spec
from ._shared.spec_payload import base_in_payload
from ._shared.spec_software import SPACK_BUILDER
from ._shared.spec_words import SpecRefused
from ._shared.working import sweep, working


def render_recipe(spec: dict[str, Any], run_id: str) -> dict[str, Any]:
    """First step of a run.

    ``spec`` is the run's input as it came. Returns, beside the common fields, ``name``, ``tag``,
    ``spec_digest``, ``recipe_path``, ``recipe_sha256``, ``build_digest`` (None until a payload is known),
    ``payload_kind`` (none, https, git or collection), ``staging`` (where Transfer shall bring a payload),
    ``cached`` with ``container_id``, and ``run_dir``.
    """
    return run_step("render_recipe", lambda: _render(spec, run_id))


def _render(given: dict[str, Any], run_id: str) -> dict[str, Any]:
    try:
        spec = check_spec(given)
    except SpecRefused as refused:
        raise StepFailed(refused.code, refused.message, "Mend the spec and start again.") from None
    site = load_site()
    folder = RunFolder(site["root"], run_id)
    folder.create()
    with working(folder, site, "render_recipe", 1):
        folder.write("spec.json", spec)
        result = _plan(spec, site, folder)
    sweep(site["root"], folder)
    return result


def _plan(spec: dict[str, Any], site: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    try:
        load_modules(site)
    except StepFailed:
        pass  # where the engine is no module of this node's, the build's own node has it
    lock = take_lock([site["root"], *site["shared_roots"]], folder, spec)
    versions = lock["worker"] if lock else worker_versions(spec["worker"])
    base, base_digest = _pin_base(locked_base(spec, lock) if lock else spec, site)
    payload = _plan_payload(spec, site, folder)
    brought = base_in_payload(spec)
    if brought:
        payload["base"] = brought
    builder = None
    if spec["spack"]:
        builder, _ = resolve(spec["spack"].get("builder", SPACK_BUILDER), site, "docker")
    recipe = render_text(spec, versions, base, builder=builder)
    write_text(folder.recipe, recipe)
    recipe_sha256 = sha256_text(recipe)
    plan = {
        "run_id": folder.run_id,
        "name": spec["name"],
        "tag": spec["tag"],
        "spec_digest": spec_digest(spec),
        "recipe_sha256": recipe_sha256,
        "base": {**spec["base"], "resolved": base, "digest": base_digest},
        "payload": payload,
        "worker": versions,
        "engine": engine_version(),
        "machine": planned_machine(spec["machine"], machine()),
        "spack_builder": builder,
        "run_endpoint": spec["run_endpoint"],
        "force": spec["force"],
        "planned_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    cached = None
    if payload["kind"] == "none":
        plan["payload_digest"] = ""
        plan["build_digest"] = build_digest(plan)
        if not spec["force"]:
            cached = Catalogue(site["root"]).built(plan["build_digest"])
    folder.write("plan.json", plan)
    return {
        "name": spec["name"],
        "tag": spec["tag"],
        "spec_digest": plan["spec_digest"],
        "recipe_path": folder.recipe,
        "recipe_sha256": recipe_sha256,
        "build_digest": plan.get("build_digest"),
        "base": base,
        "payload_kind": payload["kind"],
        "staging": payload.get("staging"),
        "cached": cached is not None,
        "container_id": cached["container_id"] if cached else None,
        "run_dir": folder.path,
    }


def _pin_base(spec: dict[str, Any], site: dict[str, Any]) -> tuple[str, str]:
    """The base as the recipe names it, and the digest of its content."""
    bootstrap, image = spec["base"]["bootstrap"], spec["base"]["image"]
    if bootstrap in ("docker", "oras"):
        return resolve(image, site, bootstrap)
    if base_in_payload(spec):
        return image, ""  # fetch_payload finds it, and its digest
    if bootstrap in FILE_BOOTSTRAPS:
        # a build runs as the endpoint's account: it must not be made to read what only that account may
        root = os.path.realpath(os.path.join(site["root"], "images"))
        path = os.path.realpath(image)
        if not path.startswith(root + os.sep):
            raise StepFailed(
                "base_refused",
                f"'base.image' {image} is not below the endpoint's image root {root}, nor in the payload.",
                "Register the image there first, bring it in the payload, or take a base from a registry.",
            )
        if not os.path.isfile(path):
            raise StepFailed(
                "base_not_found", f"The base image {image} does not exist on the endpoint."
            )
        return path, "sha256:" + sha256_file(path)
    # library references carry no digest that could be asked for without an account; apptainer resolves them
    named = LIBRARY_REFERENCE.fullmatch(image)
    if named and named["host"]:
        check_host(f"https://{named['host']}/", site, "base_refused", "The base image")
    return image, ""


def _plan_payload(spec: dict[str, Any], site: dict[str, Any], run: RunFolder) -> dict[str, Any]:
    payload = spec["payload"]
    if not wants_payload(spec):
        return {"kind": "none"}
    plan = {"destination": payload["destination"], "sha256": payload.get("sha256")}
    if "url" in payload:
        return {"kind": "https", "url": payload["url"], **plan}
    if "git" in payload:
        commit = resolve_ref(payload["git"], payload.get("ref"), site, run.is_aborted)
        return {"kind": "git", "git": payload["git"], "commit": commit, **plan}
    staging = site["staging"]
    if not staging:
        raise StepFailed(
            "payload_not_visible",
            "This endpoint's site profile names no staging collection, so Globus Transfer cannot bring a payload.",
            "Give the payload as an https address or git repository, or ask the endpoint's administrator "
            "to set 'staging'.",
        )
    # the second part cannot be guessed, since the folder may be writable by others on the collection
    place = f"payload-{secrets.token_hex(8)}"
    folder = os.path.join(staging["path"], run.run_id)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return {
        "kind": "collection",
        "source": spec["payload_collection"],
        "staging": {
            "collection_id": staging["collection_id"],
            "collection_path": f"{staging['collection_path'].rstrip('/')}/{run.run_id}/{place}",
            "path": os.path.join(folder, place),
        },
        **plan,
    }
