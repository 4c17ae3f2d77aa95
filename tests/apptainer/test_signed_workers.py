"""Workers start only in images that the site's policy allows, whoever names the image."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cib_flows.errors import ServiceError

from .calling import called_in
from .conftest import LocalGlobus
from .test_trust import keys

__all__ = ["keys"]


def test_workers_start_in_signed_images_only(
    start_globus: Callable[..., LocalGlobus], keys: tuple[str, str]
) -> None:
    globus = start_globus(sign_key=keys[0], verify_keys=[keys[1]], require_signature=True)
    made = globus.built({"name": "guarded", "base": {"image": "python:3.11-slim"}})
    endpoint_id, image = made["executor"]["endpoint_id"], Path(made["path"])
    assert called_in(globus, endpoint_id, image) == {"answer": 42}
    # a good image that nobody registered, in the very place where the schema allows images
    stranger = image.with_name("stranger.sif")
    shutil.copy(image, stranger)
    with pytest.raises(ServiceError, match="is not a registered container, and this site allows"):
        called_in(globus, endpoint_id, stranger)
