"""A program that endpoint templates run on a node before workers start in an image: ``python3 check_image.py IMAGE``.

It says in one sentence on standard error why none may: the site's policy does not allow the image, or its worker
and the endpoint would not talk. Whoever waits for the functions' results reads that.
"""

from __future__ import annotations

import sys

from .results import StepFailed
from .run_versions import own_versions
from .site import load_site
from .trust import registered, require_allowed
from .worker_match import differing_version


def check_image(words: list[str]) -> int:
    """The program: its words are the image's path. Returns its exit status, 0 where workers may start."""
    try:
        if len(words) != 1:
            raise StepFailed("spec_invalid", "check_image.py takes the path of one image.")
        require_startable(words[0])
    except StepFailed as failure:
        return _refusal(f"{failure.message} {failure.hint}")
    except OSError as problem:
        return _refusal(f"The image {' '.join(words)} cannot be checked on this node: {problem}.")
    return 0


def require_startable(image: str) -> None:
    """Raise :class:`StepFailed` where no worker may start in the file ``image``: as :func:`require_allowed` does, and
    ``verify_version_mismatch``. Nothing is held against an image of which no catalogue of the site knows anything,
    unless the site has a policy.
    """
    site = load_site()
    require_allowed(site, image)
    found = registered(site, image)
    differing = differing_version(found[1], own_versions()) if found else None
    if found and differing:
        name, inside, here = differing
        raise StepFailed(
            "verify_version_mismatch",
            f"The image {found[1].get('name')} holds {name} {inside}, and this endpoint runs {here}: "
            "its workers would never answer.",
            "Build it again on this endpoint, or use 'cib-flows containers run', which needs no worker in the image.",
        )


def _refusal(sentence: str) -> int:
    sys.stderr.write(f"cib-flows: {sentence.strip()}\n")
    return 1
