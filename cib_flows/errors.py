"""Every error this package raises on purpose.

::

    CibFlowsError            exit code 1
    ├── SpecError            2  a container spec was refused
    ├── UsageError           2  a wrong option, argument or setting
    │   └── IllegalNameError 2  not a name that the catalogue can have
    ├── NotDeployedError     2  the flow has not been deployed to this Globus yet
    ├── ServiceError         1  a Globus service refused or did not answer
    ├── NotFoundError        1  no such run, container or tag
    │   └── SourceNotFoundError 1  no such file to register
    ├── RunFailedError       1  the run ended without a container
    └── CatalogueError       1  the catalogue refused, or an image did not hold what its record says
        ├── AlreadyExistsError  a name is another container's
        └── InUseError          something still holds a container
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AlreadyExistsError",
    "CatalogueError",
    "CibFlowsError",
    "IllegalNameError",
    "InUseError",
    "NotDeployedError",
    "NotFoundError",
    "RunFailedError",
    "ServiceError",
    "SourceNotFoundError",
    "SpecError",
    "UsageError",
]


class CibFlowsError(Exception):
    """Root of this package's errors: one sentence, perhaps a hint, and the exit code the CLI ends with.

    ``code`` is the name that the service or the endpoint has for what happened, where it has one.
    """

    exit_code = 1
    code: str | None = None

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SpecError(CibFlowsError):
    """A container spec was refused. ``field`` names the field as a path, such as ``base.image``."""

    exit_code = 2

    def __init__(self, message: str, field: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.field = field


class UsageError(CibFlowsError):
    """A wrong option, argument or setting."""

    exit_code = 2


class IllegalNameError(UsageError):
    """Not a name, tag or digest that the catalogue can have."""


class NotDeployedError(UsageError):
    """The flow has not been deployed to this Globus yet."""


class ServiceError(CibFlowsError):
    """A Globus service refused a request or did not answer."""


class NotFoundError(CibFlowsError):
    """No such run, container or tag."""


class SourceNotFoundError(NotFoundError):
    """The image that was to be registered is not where it was said to be."""


class RunFailedError(CibFlowsError):
    """A run ended without a container.

    ``failure`` is what the flow's ReportFailure step found: ``sentence``, ``code``, ``hint``,
    ``failed_step``, ``log_path``, ``log_tail`` and ``canceled``; empty for a run that is paused.
    """

    def __init__(
        self, message: str, failure: dict[str, Any] | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint)
        self.failure = failure or {}


class CatalogueError(CibFlowsError):
    """The catalogue refused, or an image does not hold what its record says."""


class AlreadyExistsError(CatalogueError):
    """A name is another container's."""


class InUseError(CatalogueError):
    """Something still holds a container: a tag, a pin, a lease or a run."""
