"""The folder in which one embedded Globus keeps everything it is and knows.

Several homes may live side by side; each has its own identity, secrets, endpoint and state. The
layout is part of the contract with the rest of the package::

    token          bearer token for people and scripts (0600)
    client.json    client id and secret, signing key, ids of the built-in endpoint and collection (0600)
    state.db       every service's tables
    server.json    pid, port, compute_port, amqp_port of the server
    server.lock    locked for as long as the server lives
    start.lock     locked while somebody starts or stops it
    server.log     what the server and its engines had to say
    broker         URL of the RabbitMQ that endpoint daemons use (0600); absent: the embedded queue
    site.json      the site profile that functions read
    endpoint/      the Compute endpoint's configuration, as an administrator would install it
    runs/          one folder per user endpoint process
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cib_flows.errors import UsageError

__all__ = ["Client", "Home", "ServerRecord", "read_declared", "write_aside"]

Declared = TypeVar("Declared")

DEFAULT_HOME = "~/.cib-flows/local"

# The home's path is part of the worker pool's launch line, whose quoting the endpoint package
# destroys.
_SAFE_PATH = re.compile(r"/[A-Za-z0-9._/+@~-]*")

_SERVICES = (
    "AUTH",
    "FLOWS",
    "COMPUTE",
    "TRANSFER",
    "SEARCH",
    "GROUPS",
    "TIMER",
    "TIMERS",
    "APP",
)


def write_aside(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace ``path`` by ``text`` so that a reader, or a crash, sees the old file or the new
    one."""
    os.replace(_aside(path, text, mode), path)


def _aside(path: Path, text: str, mode: int) -> Path:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    return aside


def _write_once(path: Path, text: str, mode: int) -> None:
    """Make ``path``, unless there is one: where several do so at once, all find the same."""
    if path.exists():
        return
    aside = _aside(path, text, mode)
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(aside)


def read_declared(path: Path, kind: type[Declared]) -> list[Declared]:
    """What a file of declarations holds; nothing without the file. Raises :class:`UsageError` for a
    damaged one."""
    try:
        return [kind(**entry) for entry in json.loads(path.read_text("utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as problem:
        raise UsageError(
            f"{path} cannot be read ({problem}); correct it, or remove it and declare anew what it"
            " held."
        ) from None


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _with_root(site: Any, what: str) -> dict[str, Any]:
    if not isinstance(site, dict) or not isinstance(site.get("root"), str):
        raise UsageError(f"{what} must be an object with a 'root', the folder for images and runs.")
    return site


@dataclass(frozen=True)
class Client:
    """Who this home is: its one Globus Auth client, and the ids of what is built in."""

    client_id: str
    client_secret: str
    signing_key: str
    queue_password: str
    endpoint_id: str
    staging_collection_id: str

    @classmethod
    def new(cls) -> Client:
        return cls(
            client_id=str(uuid.uuid4()),
            client_secret=secrets.token_urlsafe(32),
            signing_key=secrets.token_hex(32),
            queue_password=secrets.token_hex(16),
            endpoint_id=str(uuid.uuid4()),
            staging_collection_id=str(uuid.uuid4()),
        )


@dataclass(frozen=True)
class ServerRecord:
    """Where the server answers. ``compute_port`` is null while another process holds port 5000;
    ``pid`` is null once the server was stopped (the ports are kept for the next start)."""

    pid: int | None
    port: int
    compute_port: int | None
    amqp_port: int | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


class Home:
    """One home. Making the object touches nothing; :meth:`prepare` creates what is missing."""

    def __init__(self, path: Path | str | None = None) -> None:
        chosen = path or os.environ.get("CIB_FLOWS_HOME") or DEFAULT_HOME
        self.path = Path(os.path.abspath(os.path.expanduser(chosen)))
        if not _SAFE_PATH.fullmatch(str(self.path)):
            raise UsageError(
                f"The home {str(self.path)!r} holds a character that a container's launch line cannot carry; "
                "use letters, digits and . _ - + @ ~ only."
            )
        self.token_path = self.path / "token"
        self.client_path = self.path / "client.json"
        self.database_path = self.path / "state.db"
        self.server_path = self.path / "server.json"
        self.lock_path = self.path / "server.lock"
        self.log_path = self.path / "server.log"
        self.broker_path = self.path / "broker"
        self.site_path = self.path / "site.json"
        self.endpoint_dir = self.path / "endpoint"
        self.runs_dir = self.path / "runs"
        self.staging_dir = self.path / "staging"

    # -- what it is ----------------------------------------------------------------------------

    def prepare(self) -> Client:
        """Create the folders and the secrets that are missing; what exists is left as it is."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(self.path, 0o700)
        for folder in (self.endpoint_dir, self.runs_dir, self.staging_dir):
            folder.mkdir(exist_ok=True)
        client = json.dumps(asdict(Client.new()), indent=2) + "\n"
        _write_once(self.client_path, client, 0o600)
        _write_once(self.token_path, secrets.token_urlsafe(32) + "\n", 0o600)
        self.token()
        return self.client()

    def client(self) -> Client:
        """The home's identity. Raises :class:`UsageError` where there is no home yet, or a damaged
        one."""
        try:
            return Client(**json.loads(self.client_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UsageError(
                f"There is no local Globus in {self.path}; make one with "
                f"'cib-flows local start --home {self.path}'."
            ) from None
        except (ValueError, TypeError) as problem:
            raise UsageError(
                f"{self.client_path} cannot be read ({problem}); restore it, or start with another --home."
            ) from None

    def token(self) -> str:
        """The home's bearer token. Raises :class:`UsageError` for an empty one, which everybody
        would hold."""
        text = self.token_path.read_text(encoding="utf-8").strip()
        if not text:
            raise UsageError(f"{self.token_path} is empty; remove it, and the start makes another.")
        return text

    # -- its site profile ----------------------------------------------------------------------

    def write_site(self, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write ``site.json``: this home's defaults, with ``overrides`` over them key by key.

        Without overrides an existing file is left alone, so that a restart keeps the site it had.
        """
        if overrides is None and self.site_path.exists():
            return self.site()
        site: dict[str, Any] = {
            "name": "local",
            "root": str(self.path / "containers"),
            "staging": {
                "collection_id": self.client().staging_collection_id,
                "collection_path": "/",
                "path": str(self.staging_dir),
            },
            # everyone who builds here is the owner of this home, so nobody can see too much
            "unpack_in_memory": True,
        }
        site = _with_root({**site, **(overrides or {})}, "The site profile")
        Path(site["root"]).mkdir(parents=True, exist_ok=True)
        write_aside(self.site_path, json.dumps(site, indent=2) + "\n")
        return site

    def site(self) -> dict[str, Any]:
        """The site profile. Raises :class:`UsageError` for a file that holds none."""
        try:
            site = json.loads(self.site_path.read_text(encoding="utf-8"))
        except ValueError as problem:
            raise UsageError(
                f"{self.site_path} is not readable JSON ({problem}); correct it, or remove it for"
                " the default."
            ) from None
        return _with_root(site, str(self.site_path))

    # -- its broker ----------------------------------------------------------------------------

    def broker_url(self) -> str | None:
        """The RabbitMQ for endpoint daemons; None for the embedded queue."""
        try:
            return self.broker_path.read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None

    def write_broker(self, url: str | None) -> None:
        """Choose the broker for the next start; None: the embedded queue. Raises
        :class:`UsageError`."""
        if url is None:
            self.broker_path.unlink(missing_ok=True)
            return
        if not re.fullmatch(r"amqps?://[^\s/]+(/[^\s]*)?", url):
            raise UsageError(
                "The broker must be a URL such as amqp://user:password@127.0.0.1:5672/%2F, "
                "or 'embedded'."
            )
        write_aside(self.broker_path, url + "\n", 0o600)

    # -- its server ----------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Hold the server's lock; yields whether it could be had. The kernel lets go of it however
        a server ends, so a lock that is free is proof that ``server.json`` is stale."""
        with self._open_lock() as descriptor:
            # Whoever only looks (running, below) holds it for an instant: not a reason to give up.
            for pause in (0.02, 0.05, 0.1, 0.2, 0.0):
                if _try_lock(descriptor, fcntl.LOCK_EX):
                    yield True
                    return
                time.sleep(pause)
            yield False

    @contextmanager
    def _open_lock(self) -> Iterator[int]:
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold off whoever else starts or stops this home's server, which must exist."""
        path = self.path / "start.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """Whether a server process of this home is alive."""
        if not self.lock_path.exists():
            return False
        with self._open_lock() as descriptor:
            return not _try_lock(descriptor, fcntl.LOCK_SH)

    def last_record(self) -> ServerRecord | None:
        """What the last server wrote, whether or not it still runs."""
        try:
            return ServerRecord(**json.loads(self.server_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def running(self) -> ServerRecord | None:
        """Where the server answers, or None when none runs."""
        record = self.last_record() if self.is_locked() else None
        return record if record is not None and record.pid is not None else None

    def forget_last_server(self) -> None:
        """Say that no server answers yet; called by the one that has the lock and will. The last
        one's pid, where it was killed, may be anybody's by now."""
        last = self.last_record()
        if last is not None and last.pid is not None:
            self.write_record(replace(last, pid=None, compute_port=None))

    def write_record(self, record: ServerRecord) -> None:
        write_aside(self.server_path, json.dumps(asdict(record), indent=2) + "\n")

    def environment(self) -> dict[str, str]:
        """The variables that make the unmodified Globus clients talk to this home.

        Raises :class:`UsageError` when no server runs: without one there is no address to give.
        """
        record = self.running()
        if record is None:
            raise UsageError(
                f"The local Globus in {self.path} is not running; start it with "
                f"'cib-flows local start --home {self.path}'."
            )
        client = self.client()
        site = self.site()
        environment = {"CIB_FLOWS_HOME": str(self.path), "GLOBUS_SDK_ENVIRONMENT": "local"}
        environment |= {f"GLOBUS_SDK_SERVICE_URL_{name}": record.url for name in _SERVICES}
        for prefix in ("GLOBUS_CLI", "GLOBUS_COMPUTE", "CIB_FLOWS"):
            environment[f"{prefix}_CLIENT_ID"] = client.client_id
            environment[f"{prefix}_CLIENT_SECRET"] = client.client_secret
        environment["CIB_FLOWS_BUILD_ENDPOINT"] = client.endpoint_id
        environment["CIB_FLOWS_STAGING_COLLECTION"] = client.staging_collection_id
        staging = site.get("staging")
        if isinstance(staging, dict) and isinstance(staging.get("path"), str):
            environment["CIB_FLOWS_STAGING_PATH"] = staging["path"]
        return environment
