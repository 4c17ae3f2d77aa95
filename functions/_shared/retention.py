"""What may go, and in which order: a decision about a list of images, apart from any file."""

from __future__ import annotations

from typing import Any

from .catalogue_index import image_key

DAY_S = 24 * 3600

# key of 'retention' in a site profile -> its value where nothing is said (None: no such rule)
RETENTION: dict[str, float | None] = {
    "max_bytes": None,  # of all images together; the longest unused go first
    "max_age_s": 90 * DAY_S,  # since an image was made or last used
    "keep_last": 1,  # of each name, the newest images stay whatever their age
    "min_age_s": 3600,  # younger images stay: a run may be about to use them
    "runs_age_s": 30 * DAY_S,  # folders of runs: spec, recipe, log
    "trash_age_s": DAY_S,
    "incoming_age_s": DAY_S,  # images that were fetched and never registered
    "cache_bytes": None,  # a cache of the build engine that is larger is emptied
}


def retention_of(site: dict[str, Any], given: dict[str, Any] | None) -> dict[str, float | None]:
    """The site's rules with those ``given`` over them. Raises ``ValueError`` with one sentence."""
    policy = dict(RETENTION)
    for source in (site.get("retention") or {}, given or {}):
        for key, value in source.items():
            if key not in RETENTION:
                known = ", ".join(RETENTION)
                raise ValueError(f"There is no retention rule '{key}'; known are {known}.")
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0
            ):
                raise ValueError(f"The retention rule '{key}' must be a number from 0 on, or null.")
            policy[key] = value
    return policy


def choose(
    rows: list[dict[str, Any]], held: set[str], policy: dict[str, float | None]
) -> list[tuple[dict[str, Any], str]]:
    """The images to remove, each with the reason, the longest unused first.

    A row has ``name``, ``sha256``, ``bytes``, ``created_at`` and ``idle_s`` (seconds since it was made or
    last used). What is ``held``, by its image key, is never chosen.
    """
    newest: dict[str, int] = {}
    candidates = []
    for row in sorted(rows, key=lambda r: (r["created_at"], r["sha256"]), reverse=True):
        rank = newest[row["name"]] = newest.get(row["name"], 0) + 1
        is_kept = policy["keep_last"] is not None and rank <= policy["keep_last"]
        if (
            image_key(row["name"], row["sha256"]) not in held
            and not is_kept
            and row["idle_s"] >= (policy["min_age_s"] or 0)
        ):
            candidates.append(row)
    candidates.sort(key=lambda r: (-r["idle_s"], r["sha256"]))
    total = sum(row["bytes"] for row in rows)
    chosen = []
    for row in candidates:
        if policy["max_age_s"] is not None and row["idle_s"] > policy["max_age_s"]:
            reason = "age"
        elif policy["max_bytes"] is not None and total > policy["max_bytes"]:
            reason = "size"
        else:
            continue
        chosen.append((row, reason))
        total -= row["bytes"]
    return chosen
