"""How long a step may take: the smallest of the site's cap and what the batch job has left.

An endpoint's template exports the job's end as ``CIB_JOB_END_S`` (seconds since 1970), because a scheduler
that kills a build leaves nobody to say so.
"""

from __future__ import annotations

import os
import time
from typing import Any

from .results import StepFailed

JOB_END_VARIABLE = "CIB_JOB_END_S"
JOB_MARGIN_S = 60  # to stop a build, clean up after it and report
LEAST_USEFUL_S = 120  # below that no build is begun


def job_seconds_left() -> float | None:
    """Seconds until the batch job ends; None outside one, or where the template does not say."""
    try:
        return float(os.environ[JOB_END_VARIABLE]) - time.time()
    except (KeyError, ValueError):
        return None


def within_job(site: dict[str, Any], least_s: float = LEAST_USEFUL_S) -> dict[str, Any]:
    """``site`` with its time limits cut to the job's. Raises :class:`StepFailed` when too little is left.

    ``job_limited`` says whether the job, not the site, sets the limit: the sentence for the user differs.
    """
    left = job_seconds_left()
    if left is None:
        return {**site, "job_limited": False}
    usable = left - JOB_MARGIN_S
    least = min(least_s, float(site["build_time_limit_s"]), float(site["verify_time_limit_s"]))
    if usable < least:
        raise StepFailed(
            "time_limit",
            f"The batch job on the build node ends in {max(0, round(left))} seconds, which is too little "
            "to begin this step.",
            "Start the run again, which gets a new batch job; if it happens again, ask the endpoint's "
            "administrator for a longer walltime.",
        )
    return {
        **site,
        "job_limited": usable < float(site["build_time_limit_s"]),
        "build_time_limit_s": min(float(site["build_time_limit_s"]), float(round(usable))),
        "verify_time_limit_s": min(float(site["verify_time_limit_s"]), float(round(usable))),
    }


def time_limit_failure(site: dict[str, Any], what: str, limit_s: float) -> tuple[str, str]:
    """The sentence and the hint for a step that was stopped at ``limit_s``; ``what`` begins it ("The build")."""
    if site.get("job_limited"):
        return (
            f"{what} was stopped after {limit_s:g} seconds because its batch job ends.",
            "Make the image smaller, or ask the endpoint's administrator for a longer walltime.",
        )
    return (
        f"{what} did not finish within {limit_s:g} seconds and was stopped.",
        "Make the image smaller, or ask the endpoint's administrator for a longer limit.",
    )
