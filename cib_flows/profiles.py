"""Which Globus to speak to, and as whom.

Two profiles: ``local`` is the embedded Globus of a home folder (``cib-flows local start``),
``globus`` is globus.org. The choice is made here and nowhere else: afterwards there are only
``globus_sdk`` clients. For ``local``, the variables that ``cib-flows local env`` prints are set in
this process, which is what makes those clients, and the Compute SDK's, go there.
"""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from cib_flows.errors import UsageError
from cib_flows.services import Pacer, explained, retries

if TYPE_CHECKING:
    import globus_compute_sdk
    import globus_sdk
    from globus_sdk.transport import RetryConfig

__all__ = ["Globus", "ProfileName", "connect", "connect_as", "default_home", "record_place"]

ProfileName = Literal["local", "globus"]

APP_NAME = "cib-flows"
LOCAL_CALLS = 1000
LOGIN_HINT = (
    "Set CIB_FLOWS_NATIVE_CLIENT_ID to the id of a native app registered at "
    "app.globus.org/settings/developers, "
    "or CIB_FLOWS_CLIENT_ID and CIB_FLOWS_CLIENT_SECRET to a service client's."
)


@dataclass
class Globus:
    """A Globus to speak to: who acts (``app``), where its deployment record lies, and clients for
    the services.

    ``build_endpoint`` is the endpoint that this Globus offers by itself, if any; ``home`` the
    folder of an embedded one, where it is on this machine and known.
    """

    profile: ProfileName
    app: globus_sdk.GlobusApp
    record_path: Path
    build_endpoint: str | None = None
    home: Path | None = None
    flows_pacer: Pacer = field(default_factory=Pacer)
    # Globus Compute allows 20 requests in 10 seconds, and a first deployment has almost as many.
    compute_pacer: Pacer = field(default_factory=lambda: Pacer(19))
    # How each client tries again what failed for now.
    retries: Callable[[], RetryConfig] = retries

    @cached_property
    def flows(self) -> globus_sdk.FlowsClient:
        import globus_sdk

        with explained("log in to Globus Flows"):
            scopes = globus_sdk.FlowsClient.scopes
            return globus_sdk.FlowsClient(
                app=self.app,
                app_scopes=[
                    scopes.manage_flows,
                    scopes.view_flows,
                    scopes.run_status,
                    scopes.run_manage,
                ],
                retry_config=self.retries(),
            )

    @cached_property
    def compute(self) -> globus_sdk.ComputeClientV3:
        import globus_sdk

        with explained("log in to Globus Compute"):
            return globus_sdk.ComputeClientV3(app=self.app, retry_config=self.retries())

    @cached_property
    def compute_v2(self) -> globus_sdk.ComputeClientV2:
        import globus_sdk

        with explained("log in to Globus Compute"):
            return globus_sdk.ComputeClientV2(app=self.app, retry_config=self.retries())

    @cached_property
    def transfer(self) -> globus_sdk.TransferClient:
        """Made only where it is needed: a login then asks for the consent to use Transfer."""
        import globus_sdk

        with explained("log in to Globus Transfer"):
            return globus_sdk.TransferClient(app=self.app, retry_config=self.retries())

    def flow(self, flow_id: str, data_access: Sequence[str] = ()) -> globus_sdk.SpecificFlowClient:
        """A client that may start and resume runs of one flow; logging in asks for that flow's
        consent, and for access to the data of the mapped collections in ``data_access``.
        """
        import globus_sdk

        with explained("log in to the flow"):
            client = globus_sdk.SpecificFlowClient(
                flow_id, app=self.app, retry_config=self.retries()
            )
            return client.add_app_transfer_data_access_scope(data_access) if data_access else client

    def compute_sdk_client(self) -> globus_compute_sdk.Client:
        """A new client of the Compute SDK, which is what an ``Executor`` needs."""
        import globus_compute_sdk

        with explained("log in to Globus Compute"):
            return globus_compute_sdk.Client(app=self.app)


def default_home() -> Path:
    """The home folder of the embedded Globus: ``CIB_FLOWS_HOME``, else ``~/.cib-flows/local``."""
    return Path(os.environ.get("CIB_FLOWS_HOME") or "~/.cib-flows/local").expanduser()


def connect(profile: str | None = None, home: str | Path | None = None) -> Globus:
    """The Globus of ``profile`` (default: ``CIB_FLOWS_PROFILE``, else ``local``).

    ``home`` is the folder of an embedded Globus; without it, one whose variables are already set in
    the environment is taken as it is, else ``default_home()``.

    Raises ``UsageError`` for an unknown profile, a home that does not run, or credentials that are
    missing.
    """
    folder = Path(home).expanduser() if home is not None else None
    return _globus_org() if _named(profile, folder) == "globus" else _local(folder)


def record_place(profile: str | None = None, home: str | Path | None = None) -> Path:
    """Where the deployment record of that Globus lies, found without asking it anything."""
    folder = Path(home).expanduser() if home is not None else None
    if _named(profile, folder) == "globus":
        return _globus_record()
    return _local_record(folder if folder or _environment_is_local() else default_home())


def _named(profile: str | None, home: Path | None) -> ProfileName:
    name = profile or os.environ.get("CIB_FLOWS_PROFILE") or "local"
    if name == "local":
        return "local"
    if name != "globus":
        raise UsageError(f"There is no profile {name!r}; choose local or globus.")
    if home is not None:
        raise UsageError("A home folder belongs to the profile local, not to globus.")
    return "globus"


def connect_as(app: globus_sdk.GlobusApp | None) -> Globus:
    """The Globus that the environment names, with ``app`` acting where one is given.

    For programs that made their own Compute ``Client`` and log in with that.
    """
    name: ProfileName = "local" if _environment_is_local() else "globus"
    if app is None:
        return connect(name)
    if name == "globus":
        return Globus(name, app, _globus_record(), _endpoint_from_environment())
    return _embedded(app, _local_record(None))


def _environment_is_local() -> bool:
    return os.environ.get("GLOBUS_SDK_ENVIRONMENT") == "local"


def _endpoint_from_environment() -> str | None:
    value = os.environ.get("CIB_FLOWS_BUILD_ENDPOINT")
    if not value:
        return None
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise UsageError(
            f"CIB_FLOWS_BUILD_ENDPOINT is {value!r}, which is not an endpoint's UUID."
        ) from None


def _record_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "cib-flows"


def _globus_record() -> Path:
    named = os.environ.get("CIB_FLOWS_DEPLOYMENT")
    return Path(named).expanduser() if named else _record_folder() / "globus.json"


def _globus_org() -> Globus:
    if _environment_is_local():
        raise UsageError(
            "The profile globus was asked for, but GLOBUS_SDK_ENVIRONMENT=local points this "
            "shell at an embedded "
            "Globus; use another shell, or unset the variables that 'cib-flows local env' printed."
        )

    client_id = os.environ.get("CIB_FLOWS_CLIENT_ID")
    secret = os.environ.get("CIB_FLOWS_CLIENT_SECRET")
    if bool(client_id) != bool(secret):
        raise UsageError(
            "Only one of CIB_FLOWS_CLIENT_ID and CIB_FLOWS_CLIENT_SECRET is set; a service "
            "client needs both."
        )
    app: globus_sdk.GlobusApp
    if client_id and secret:
        app = _client_app(client_id, secret)
    else:
        app = _user_app()
    globus = Globus("globus", app, _globus_record(), _endpoint_from_environment())
    # Making the clients notes what consents they need, so that one login asks for all of them.
    _ = globus.flows, globus.compute, globus.compute_v2
    return globus


def _user_app() -> globus_sdk.UserApp:
    import globus_sdk

    # a module of its own: the package does not bring it
    from globus_sdk.login_flows import CommandLineLoginFlowManager

    native_id = os.environ.get("CIB_FLOWS_NATIVE_CLIENT_ID")
    if not native_id:
        raise UsageError("There is no Globus client to log in with.", hint=LOGIN_HINT)

    class PromptOnStandardError(CommandLineLoginFlowManager):
        """Asks on standard error, because standard output belongs to the command's result."""

        def print_authorize_url(self, authorize_url: str) -> None:
            print(f"Log in to Globus here:\n\n  {authorize_url}\n", file=sys.stderr)

        def prompt_for_code(self) -> str:
            print("Then enter the code it shows: ", end="", file=sys.stderr, flush=True)
            with self._handle_input_errors():
                return input().strip()

    return globus_sdk.UserApp(
        APP_NAME,
        client_id=native_id,
        config=globus_sdk.GlobusAppConfig(
            login_flow_manager=PromptOnStandardError,
            request_refresh_tokens=True,
            auto_redrive_gares=True,
        ),
    )


def _client_app(client_id: str, secret: str) -> globus_sdk.ClientApp:
    """A service client; its tokens are cheap to get anew, so none is written to disk."""
    import globus_sdk

    return globus_sdk.ClientApp(
        APP_NAME,
        client_id=client_id,
        client_secret=secret,
        config=globus_sdk.GlobusAppConfig(token_storage="memory"),  # noqa: S106 - the word names a place,
    )


def _local(home: Path | None) -> Globus:
    if home is None and not _environment_is_local():
        home = default_home()
    if home is not None:
        os.environ.update(_environment_of(home))
    client_id = os.environ.get("CIB_FLOWS_CLIENT_ID")
    secret = os.environ.get("CIB_FLOWS_CLIENT_SECRET")
    if not client_id or not secret:
        raise UsageError(
            "GLOBUS_SDK_ENVIRONMENT is local, but CIB_FLOWS_CLIENT_ID and "
            "CIB_FLOWS_CLIENT_SECRET are not set; "
            "set all that 'cib-flows local env' prints, or name the home with --home."
        )
    named = home or (default_home() if os.environ.get("CIB_FLOWS_HOME") else None)
    return _embedded(_client_app(client_id, secret), _local_record(home), named)


def _embedded(app: globus_sdk.GlobusApp, record: Path, home: Path | None = None) -> Globus:
    """An embedded Globus is one's own, and has no limit; a first deployment need not wait for one."""
    pacers = Pacer(LOCAL_CALLS), Pacer(LOCAL_CALLS)
    return Globus("local", app, record, _endpoint_from_environment(), home, *pacers)


def _environment_of(home: Path) -> dict[str, str]:
    try:
        from cib_flows.local.home import Home
    except ImportError as missing:
        raise UsageError(
            f"The embedded Globus is not installed ({missing}).",
            hint="Install cib-flows[local], or use --profile globus.",
        ) from missing
    return Home(home).environment()


def _local_record(home: Path | None) -> Path:
    """Beside the home where that is known, since it describes what the home's database holds."""
    named = os.environ.get("CIB_FLOWS_DEPLOYMENT")
    if named:
        return Path(named).expanduser()
    if home is None and os.environ.get("CIB_FLOWS_HOME"):
        home = default_home()
    if home is not None:
        return home / "deployment.json"
    address = urlsplit(os.environ.get("GLOBUS_SDK_SERVICE_URL_FLOWS", "")).netloc
    name = hashlib.sha256(address.encode()).hexdigest()[:12]
    return _record_folder() / f"local-{name}.json"
