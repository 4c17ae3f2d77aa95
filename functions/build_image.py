"""Runs ``apptainer build`` on the rendered recipe, and believes only a finished image that can be read."""

from __future__ import annotations

import os
import time
from typing import Any

from ._shared.catalogue import Catalogue
from ._shared.engine import Builder
from ._shared.files import copy_file, sha256_file, write_text
from ._shared.machine_check import require_machine
from ._shared.node_check import prepare_node, require_node
from ._shared.places import choose_tmpdir
from ._shared.recipe import environment_only, has_later_steps, render_text
from ._shared.results import StepFailed, run_step
from ._shared.run_folder import RunFolder
from ._shared.run_versions import engine_version, find_apptainer
from ._shared.site import load_site
from ._shared.spec_check import FILE_BOOTSTRAPS
from ._shared.stages import Stage, Stages, ground_of, requirements_in
from ._shared.turns import Turns, ask_for_turn
from ._shared.working import scratch_folder, working

# How much larger a tree is than its squashed image, and then room for the image and downloads.
UNPACKED_FACTOR = 6
NOTHING_BUILT: dict[str, Any] = {"cached": False, "waiting": "", "sif_sha256": "", "log_path": ""}


def build_image(run_id: str, recipe_sha256: str) -> dict[str, Any]:
    """Third step: the build itself.

    Returns ``sif_path``, ``sif_sha256``, ``sif_bytes``, ``log_path``, ``build_s``, ``phases_s`` (seconds of
    each phase: ``base``, ``apt``, ``pip``, … ``image``) and ``stage`` (``none``, ``part`` or ``whole``: how much
    of the environment was kept from earlier builds). The image stays in the run's work area until it has been
    verified and registered.

    ``waiting`` says why nothing was built yet, and the flow asks again; ``cached`` is true when another run
    made the very same image meanwhile, which ``container_id`` names.
    """
    return run_step("build_image", lambda: _build(run_id, recipe_sha256))


def _build(run_id: str, recipe_sha256: str) -> dict[str, Any]:
    site = prepare_node(load_site())
    folder = RunFolder(site["root"], run_id)
    plan = folder.plan_of(recipe_sha256)
    with working(folder, site, "build_image", 5):
        return _build_with_engine(site, folder, plan)


def _build_with_engine(
    site: dict[str, Any], folder: RunFolder, plan: dict[str, Any]
) -> dict[str, Any]:
    engine = find_apptainer()
    if not engine:
        raise StepFailed(
            "apptainer_missing",
            "Neither apptainer nor singularity is installed where the endpoint builds.",
            "Ask the endpoint's administrator to install Apptainer or to load its module in 'worker_init'.",
        )
    os.makedirs(folder.work, mode=0o700, exist_ok=True)
    require_node(site, folder.work)
    turns = Turns(site["root"], folder)
    why, record = ask_for_turn(turns, Catalogue(site["root"]), plan, site["most_builds"])
    if record is not None:
        return {**NOTHING_BUILT, "cached": True, "container_id": record["container_id"]}
    if why:
        return _come_again(why, site, folder, plan)
    try:
        result = _build_stages(engine, site, folder, plan)
    except BaseException:
        turns.release(plan["build_digest"])
        raise
    turns.release_slots()
    return result


def _come_again(
    why: str, site: dict[str, Any], folder: RunFolder, plan: dict[str, Any]
) -> dict[str, Any]:
    """Have the flow ask again in a while, up to the site's time limit for a build."""
    plan.setdefault("waits_since", time.time())
    folder.write("plan.json", plan)
    limit = float(site["build_time_limit_s"])
    if time.time() - plan["waits_since"] > limit:
        raise StepFailed(
            "time_limit",
            f"The build could not begin within {limit:g} seconds: it was {why}.",
            "Start the run again later, or ask the endpoint's administrator for more builds at once.",
        )
    folder.set_status("between", "build_image", why, 5)
    return {**NOTHING_BUILT, "waiting": why}


def _build_stages(
    engine: str, site: dict[str, Any], folder: RunFolder, plan: dict[str, Any]
) -> dict[str, Any]:
    spec = folder.read("spec.json")
    require_machine(spec["machine"], engine_version())
    stages = Stages(site["root"], site["stage_limit_bytes"], site["stage_max_age_s"])
    ground, requirements = ground_of(spec, plan), requirements_in(spec, plan)
    stage = None if plan["force"] else stages.best(ground, requirements)
    need = {"need_bytes": stage.size * UNPACKED_FACTOR} if stage else {}
    with open(folder.log, "w", encoding="utf-8"):
        pass
    tmpdir = choose_tmpdir(site["tmpdir"], folder.work, **need, in_memory=site["unpack_in_memory"])
    with scratch_folder(tmpdir, folder.run_id) as scratch:
        builder = Builder(engine, site, folder, plan, scratch)
        stage = _take_stage(stages, stage, ground, requirements, scratch)
        base = None if stage else _own_base(folder, plan, scratch)
        used = "none" if stage is None else "whole" if _is_whole(stage, requirements) else "part"
        # the environment is kept before the payload and the commands touch it, which takes a build of its own
        keeps = has_later_steps(spec) and _is_worth_keeping(spec, plan) and used != "whole"
        if keeps and (stage is None or stages.is_wanted_again(ground, requirements)):
            image = _build_stage(builder, stage, base, spec, plan)
            sha256 = sha256_file(image)
            kept = stages.keep(image, sha256, ground, requirements)
            stage = kept and stages.take(kept, scratch)
            stage = stage or Stage(image, sha256, requirements, os.path.getsize(image))
        finished = f"{folder.image}.new"
        builder.build(
            _recipe_from(stage, base, folder, spec, plan, whole=True),
            finished,
            _done(stage, requirements),
            with_payload=True,
        )
    sha256 = sha256_file(finished)
    if not has_later_steps(spec) and _is_worth_keeping(spec, plan):
        stages.keep(finished, sha256, ground, requirements)
    os.replace(finished, folder.image)
    result = {
        "sif_path": folder.image,
        "sif_sha256": sha256,
        "sif_bytes": os.path.getsize(folder.image),
        "log_path": folder.log,
        "build_s": round(builder.elapsed_s, 2),
        "phases_s": builder.phases_s,
        "stage": used,
        "cached": False,
        "waiting": "",
    }
    folder.write("build.json", result)
    return result


def _is_whole(stage: Stage, requirements: list[str]) -> bool:
    return sorted(stage.requirements) == requirements


def _is_worth_keeping(spec: dict[str, Any], plan: dict[str, Any]) -> bool:
    """Whether the environment took any work beyond unpacking the base."""
    asked = [spec[field] for field in ("apt", "conda", "pip", "spack")]
    return any([*asked, plan["worker"], spec["machine"].get("mpi"), plan.get("asked")])


def _done(stage: Stage | None, requirements: list[str]) -> list[str]:
    """The phases that a stage has behind it; Python packages are settled anew unless it has all of them."""
    if stage is None:
        return []
    return ["apt", "conda", *(["pip"] if _is_whole(stage, requirements) else [])]


def _take_stage(
    stages: Stages, stage: Stage | None, ground: str, requirements: list[str], scratch: str
) -> Stage | None:
    """A copy of ``stage`` for this build, or of the next best where that one is not sound."""
    while stage is not None:
        own = stages.take(stage, scratch)
        if own is not None:
            return own
        following = stages.best(ground, requirements)
        # one that cannot be removed either is not tried for ever
        stage = following if following and following.image != stage.image else None
    return None


def _own_base(folder: RunFolder, plan: dict[str, Any], scratch: str) -> str | None:
    """A copy of a base that is a file, for this build alone: the engine leaves it open to a recipe's commands.

    None where the base comes from a registry. Raises :class:`StepFailed` where the file is no longer the one
    that the plan names.
    """
    base = plan["base"]
    if base["bootstrap"] not in FILE_BOOTSTRAPS:
        return None
    if plan["payload"].get("base"):
        return folder.base
    own = os.path.join(scratch, "base")
    try:
        found = copy_file(base["resolved"], own)
    except FileNotFoundError:
        found = ""
    if base["digest"] != f"sha256:{found}":
        raise StepFailed(
            "image_changed",
            f"The base image {base['image']} was changed or removed since the run began.",
            "Start the run again.",
        )
    return own


def _recipe_from(
    stage: Stage | None,
    base: str | None,
    folder: RunFolder,
    spec: dict[str, Any],
    plan: dict[str, Any],
    *,
    whole: bool,
) -> str:
    """The recipe's file: as it was rendered, or going on from a stage or from a copy of its ``base``, or of the
    environment alone.
    """
    if stage is None and base is None and whole:
        return folder.recipe
    part = spec if whole else environment_only(spec)
    if stage is None:
        image, builder = base or plan["base"]["resolved"], plan.get("spack_builder")
        text = render_text(part, plan["worker"], image, builder=builder)
    else:
        part = {**part, "base": {"bootstrap": "localimage", "image": stage.image}}
        text = render_text(part, plan["worker"], stage.image, goes_on=True)
    if stage or base:
        label = f"%labels\n    cib-flows.goes-on-for-recipe {plan['recipe_sha256']}\n"
        text = text.replace("%labels\n", label, 1)
    path = os.path.join(folder.path, "stage.def" if not whole else "resumed.def")
    write_text(path, text)
    return path


def _build_stage(
    builder: Builder,
    stage: Stage | None,
    base: str | None,
    spec: dict[str, Any],
    plan: dict[str, Any],
) -> str:
    image = os.path.join(builder.folder.work, "stage.sif")
    recipe = _recipe_from(stage, base, builder.folder, spec, plan, whole=False)
    done = _done(stage, requirements_in(spec, plan))
    builder.build(recipe, image, done, with_payload=False)
    return image
