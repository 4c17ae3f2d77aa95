"""The one call that ``custom-image-builder`` offered, with the same arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cib_flows.builder import ContainerBuilder
from cib_flows.errors import CibFlowsError
from cib_flows.profiles import connect_as

if TYPE_CHECKING:
    import globus_compute_sdk

__all__ = ["ImageBuilderException", "RegisterImageException", "build_and_register_container"]


class ImageBuilderException(CibFlowsError):
    """No image was built; the message is the sentence that the flow found, ``failure`` the rest."""

    def __init__(
        self, message: str, failure: dict[str, Any] | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint)
        self.failure = failure or {}


class RegisterImageException(ImageBuilderException):
    """An image was built but could not be verified or registered."""


def build_and_register_container(
    gcc_client: globus_compute_sdk.Client,
    endpoint_id: str,
    image_file_name: str,
    base_image_type: str,
    base_image: str,
    payload_url: str | None = None,
    pip_packages: Sequence[str] | None = None,
    conda_packages: Sequence[str] | None = None,
    apt_packages: Sequence[str] | None = None,
) -> str:
    """Builds an image on ``endpoint_id``, waits for it, and returns its container id.

    ``gcc_client`` says who acts, and the environment which Globus; the flow is deployed there first
    where it is not. ``Container.get(container_id).executor()`` runs functions in the image.

    Raises ``ImageBuilderException``, or ``RegisterImageException`` when the image was built but not
    registered; ``SpecError`` when an argument is refused.
    """
    spec: dict[str, Any] = {
        "image_file_name": image_file_name,
        "base_image_type": base_image_type,
        "base_image": base_image,
        "payload_url": payload_url,
        "pip_packages": _listed(pip_packages),
        "conda_packages": _listed(conda_packages),
        "apt_packages": _listed(apt_packages),
    }
    globus = connect_as(gcc_client.app)
    builder = ContainerBuilder(globus=globus, build_endpoint=str(endpoint_id))
    run = builder.build({name: value for name, value in spec.items() if value is not None})
    status = run.wait()
    if status.status == "INACTIVE":
        raise ImageBuilderException(run.inactive_reason())
    if status.status != "SUCCEEDED":
        failure = run.failure()
        kind = (
            RegisterImageException
            if failure.failed_step in ("verify_image", "register_container")
            else ImageBuilderException
        )
        raise kind(failure.sentence, failure.as_dict(), failure.hint or None)
    return run.result().container_id


def _listed(packages: Sequence[str] | None) -> Sequence[str] | None:
    """A list for JSON; a lone string is passed on as it is, so that the spec's check can name
    it.
    """
    return packages if packages is None or isinstance(packages, str) else list(packages)
