"""Registered containers: finding them, and running functions and commands in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cib_flows.catalogue import Catalogue
from cib_flows.deployment_record import Deployment, load_deployment
from cib_flows.errors import CibFlowsError, ServiceError, UsageError
from cib_flows.host_runs import has_worker, run_on_host, says_worker, worker_mismatch
from cib_flows.profiles import Globus, connect
from cib_flows.services import explained
from cib_flows.tasks import last_words

if TYPE_CHECKING:
    import globus_compute_sdk

    from cib_flows.publishing import Delivery
    from cib_flows.sites import Site

__all__ = ["CommandResult", "Container", "list_containers", "run_argv"]

# A task's result may have 10 MB; two streams of this size stay well below it once they are text.
MAX_STREAM_BYTES = 1024 * 1024


@dataclass(frozen=True)
class CommandResult:
    """A command that ran in a container. ``stdout`` and ``stderr`` hold at most their last
    megabyte.

    ``returncode`` is the command's own, or as a shell has it: 127 not found, 126 not executable,
    124 out of time.
    """

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Container:
    """A registered image: what it is, and where functions run in it.

    ``path`` and ``sha256`` name the SIF on the endpoint, ``size`` its bytes. ``record`` is the
    whole JSON record where it was fetched, and otherwise what the run returned; ``cached`` says
    that the run built nothing because an identical image existed.
    """

    container_id: str
    name: str
    tag: str
    path: str
    sha256: str
    size: int
    endpoint_id: str
    user_endpoint_config: dict[str, Any]
    cached: bool = False
    record: dict[str, Any] = field(default_factory=dict, repr=False)
    globus: Globus | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_output(
        cls, globus: Globus, output: Mapping[str, Any], deployment: Deployment | None = None
    ) -> Container:
        """The container that ``register_container`` returned or ``list_containers`` found.

        Raises ``ServiceError`` when fields are missing, as from another version's functions.
        """
        how = output.get("executor") or {}
        tags = output.get("tags") or [""]
        try:
            path = str(output["path"])
            return cls(
                container_id=str(output["container_id"]),
                name=str(output["name"]),
                tag=str(output.get("tag") or tags[0]),
                path=path,
                sha256=str(output["sha256"]),
                size=int(output["bytes"]),
                endpoint_id=str(
                    how.get("endpoint_id") or (deployment.run_endpoint if deployment else "")
                ),
                user_endpoint_config=dict(
                    how.get("user_endpoint_config") or {"container_uri": path}
                ),
                cached=bool(output.get("cached", False)),
                record=dict(output),
                globus=globus,
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise ServiceError(
                f"The endpoint's answer does not describe a container ({problem!r}).",
                hint="Its functions may be of another version; run 'cib-flows deploy'.",
            ) from None

    @classmethod
    def get(
        cls, reference: str, globus: Globus | None = None, build_endpoint: str | None = None
    ) -> Container:
        """The container called ``name``, ``name:tag``, or by its id or an unambiguous start of it.

        ``globus`` is by default what ``connect()`` gives, ``build_endpoint`` (whose catalogue is
        asked) the deployment's. Raises ``NotFoundError``.
        """
        globus = globus or connect()
        record = Catalogue(globus, build_endpoint).show(reference)
        return cls.from_output(globus, record, load_deployment(globus))

    def as_dict(self) -> dict[str, Any]:
        """The container for programs: the fields above and what an ``Executor`` takes."""
        return {
            "container_id": self.container_id,
            "name": self.name,
            "tag": self.tag,
            "path": self.path,
            "sha256": self.sha256,
            "bytes": self.size,
            "cached": self.cached,
            "executor": self.executor_arguments(),
        }

    def publish(self, *sites: Site | str, name_tag: str = "", move: bool = False) -> list[Delivery]:
        """Brings the container to other sites and waits until each of them has registered it.

        A site is a name as ``cib-flows containers publish --to`` takes it, or a ``sites.Site``.
        ``publishing.publish`` returns at once instead. Raises ``RunFailedError`` naming the sites that
        did not get it; the others have it all the same.
        """
        from cib_flows.publishing import publish
        from cib_flows.sites import Site, find_site, read_sites

        globus = self.globus or connect()
        words = [site for site in sites if isinstance(site, str)]
        known = read_sites() if words else {}
        found = [s if isinstance(s, Site) else find_site(globus, s, known) for s in sites]
        source = str(self.record.get("endpoint_id") or "") or None
        run = publish(
            f"{self.name}:{self.tag}" if self.tag else self.container_id,
            found,
            globus,
            name_tag=name_tag,
            move=move,
            source_endpoint=source,
        )
        return run.result()

    def executor_arguments(self) -> dict[str, Any]:
        """The two arguments that make a Compute ``Executor``, or a flow's action, run in the
        image.
        """
        return {
            "endpoint_id": self.endpoint_id,
            "user_endpoint_config": dict(self.user_endpoint_config),
        }

    def executor(self, *, verify: bool = False, **options: Any) -> globus_compute_sdk.Executor:
        """A Compute SDK ``Executor`` whose functions run in this image.

        Functions travel as source text, so the image's Python may be another than yours.
        ``verify`` first has the endpoint check every byte, the signatures and the site's policy,
        and raises ``CatalogueError`` when they do not hold. ``options`` are the Executor's own and
        win over what is set here. Raises ``ServiceError``
        when Globus Compute cannot be reached, and when the image's worker and the endpoint's are
        of versions that would never talk.
        """
        self._require_worker()
        if verify:
            build_endpoint = self.record.get("endpoint_id")
            catalogue = Catalogue(self.globus, str(build_endpoint) if build_endpoint else None)
            catalogue.verify(self.container_id, only_trust=True)
        from globus_compute_sdk import Executor
        from globus_compute_sdk.serialize import AllCodeStrategies, ComputeSerializer

        arguments: dict[str, Any] = {
            **self.executor_arguments(),
            "label": f"{self.name}:{self.tag}",
            # The SDK's own limit makes each call of a submit-and-wait script sleep four seconds;
            # this
            # one keeps to what the service allows.
            "api_burst_limit": 8,
            "api_burst_window_s": 5,
        }
        if "serializer" not in options:
            arguments["serializer"] = ComputeSerializer(strategy_code=AllCodeStrategies())
        if "client" not in options:
            arguments["client"] = (self.globus or connect()).compute_sdk_client()
        return Executor(**{**arguments, **options})

    @cached_property
    def _whole_record(self) -> dict[str, Any]:
        """The record; what a run returned is too short to say which worker is in the image. An
        endpoint that cannot be asked is not suspected.
        """
        if self.globus is None or "worker" in self.record or "record_version" in self.record:
            return self.record
        endpoint = self.record.get("endpoint_id")
        try:
            catalogue = Catalogue(self.globus, str(endpoint) if endpoint else None)
            return catalogue.show(self.container_id)
        except CibFlowsError:
            return self.record

    def _mismatch(self) -> str:
        globus = self.globus
        return worker_mismatch(globus, self.endpoint_id, self._whole_record) if globus else ""

    def _require_worker(self) -> None:
        if not has_worker(self._whole_record):
            raise ServiceError(
                f"The image {self.name} was built without a Globus Compute worker.",
                hint="Use Container.run, Container.run_script or Container.call, which need none.",
            )
        if reason := self._mismatch():
            raise ServiceError(
                reason,
                hint="Build it again on this endpoint, or use Container.run, Container.run_script or "
                "Container.call, which need no worker in the image.",
            )

    def run_script(
        self,
        source: str,
        argv: Sequence[str] = (),
        *,
        script: str = "script.py",
        gpu: str | None = None,
        ranks: int | None = None,
        timeout_s: float | None = None,
    ) -> CommandResult:
        """Runs a Python script in the image; it needs no Globus software inside. ``script`` is its
        name in messages, ``gpu`` is ``nvidia`` or ``amd``, ``ranks`` how many copies the batch
        system's MPI launcher starts. Raises as ``run`` does.
        """
        done = run_on_host(
            self.globus or connect(),
            self.endpoint_id,
            self.path,
            source=source,
            script=script,
            argv=argv,
            gpu=gpu,
            ranks=ranks,
            timeout_s=timeout_s,
            options=self._host_options(),
        )
        return CommandResult(int(done["returncode"]), done["stdout"], done["stderr"])

    def call(
        self,
        source: str,
        function: str,
        *args: Any,
        gpu: str | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Calls a function of ``source`` in the image with JSON arguments, and returns its JSON
        result; it needs no Globus software inside. Raises ``ServiceError`` with what the code said
        when it fails.
        """
        done = run_on_host(
            self.globus or connect(),
            self.endpoint_id,
            self.path,
            source=source,
            function=function,
            args=args,
            kwargs=kwargs,
            gpu=gpu,
            timeout_s=timeout_s,
            options=self._host_options(),
        )
        if "value" not in done:
            lines = [line for line in str(done["stderr"]).splitlines() if line.strip()]
            raise ServiceError(
                f"{function} failed in {self.name} with status {done['returncode']}: "
                f"{lines[-1] if lines else 'it said nothing'}"
            )
        return done["value"]

    def _host_options(self) -> dict[str, Any]:
        """What the endpoint's template takes beside the image, such as an account."""
        own = {"container_uri", "gpu"}
        return {key: value for key, value in self.user_endpoint_config.items() if key not in own}

    def run(
        self,
        argv: Sequence[str],
        timeout_s: float | None = None,
        *,
        gpu: str | None = None,
        ranks: int | None = None,
    ) -> CommandResult:
        """Runs a command in the image, through the run endpoint, and returns what it said. Images
        without a worker, or with one that the endpoint would not understand, are started on the
        endpoint's node for it, as is every image for which ``gpu`` or ``ranks`` is given.

        ``argv`` is a list of words; no shell reads them. ``timeout_s`` limits the command, not the
        wait for a worker; ``gpu`` and ``ranks`` are those of ``run_script``. Raises ``UsageError``
        for an empty command, ``ServiceError`` when the endpoint could not run it at all.
        """
        if isinstance(argv, str) or not argv:
            raise UsageError("A command is a list of at least one word.")
        on_host = bool(gpu or ranks) or not says_worker(self._whole_record)
        if on_host or self._mismatch():
            done = run_on_host(
                self.globus or connect(),
                self.endpoint_id,
                self.path,
                command=argv,
                gpu=gpu,
                ranks=ranks,
                timeout_s=timeout_s,
                options=self._host_options(),
            )
            return CommandResult(int(done["returncode"]), done["stdout"], done["stderr"])
        with explained(f"run a command in {self.name}"), self.executor() as executor:
            submit: Callable[..., Any] = executor.submit
            future = submit(run_argv, list(argv), MAX_STREAM_BYTES, timeout_s)
            try:
                returned = future.result()
            except Exception as failure:  # whatever the worker's failure unpickles to
                raise ServiceError(
                    f"The endpoint {self.endpoint_id} could not run a command in {self.path}: "
                    f"{last_words(str(failure)) or type(failure).__name__}",
                ) from failure
        code, stdout, stderr = returned
        return CommandResult(int(code), str(stdout), str(stderr))


def list_containers(
    globus: Globus | None = None, limit: int | None = None, build_endpoint: str | None = None
) -> list[dict[str, Any]]:
    """The catalogue of a build endpoint (by default the deployment's), newest first:
    ``container_id, name, tags, path, sha256, bytes, created_at`` of each container, at most
    ``limit`` of them. ``cib_flows.catalogue.Catalogue`` has the other verbs.
    """
    return Catalogue(globus, build_endpoint).list(limit)


def run_argv(argv: list[str], limit: int, timeout_s: float | None) -> list[int | str]:
    """Runs ``argv`` and returns its exit code and the last ``limit`` bytes of each stream, as text.

    Sent to the endpoint as text, so it brings its own imports and uses only built-in types.
    """
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=timeout_s,
                check=False,
            )
            code = done.returncode
        except FileNotFoundError:
            return [127, "", f"{argv[0]}: command not found\n"]
        except PermissionError:
            return [126, "", f"{argv[0]}: permission denied\n"]
        except subprocess.TimeoutExpired:
            code = 124
        texts: list[int | str] = []
        for stream in (out, err):
            stream.seek(max(0, stream.seek(0, 2) - limit))
            texts.append(stream.read().decode("utf-8", "replace"))
    return [code, *texts]
