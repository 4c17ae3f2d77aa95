"""The catalogue of an endpoint: what is registered there, and the verbs to manage it.

Every verb is a registered function that runs on the build endpoint, so it works wherever the endpoint
does. What it refuses is raised as one of this package's errors; ``code`` says which refusal it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cib_flows.deployment import FlowSource
from cib_flows.deployment_record import load_deployment
from cib_flows.errors import (
    AlreadyExistsError,
    CatalogueError,
    CibFlowsError,
    IllegalNameError,
    InUseError,
    NotDeployedError,
    NotFoundError,
    SourceNotFoundError,
    UsageError,
)
from cib_flows.profiles import Globus, connect
from cib_flows.tasks import call_function

__all__ = ["Catalogue"]

PAGE = 500
# Hashing and running a large image takes its time, and so may the queue in front of it.
LONG_CALL_S = 6 * 3600.0
REFUSALS: dict[str, type[CibFlowsError]] = {
    "container_not_found": NotFoundError,
    "source_not_found": SourceNotFoundError,
    "illegal_name": IllegalNameError,
    "already_exists": AlreadyExistsError,
    "in_use": InUseError,
    "lock_not_found": NotFoundError,
    "lock_invalid": UsageError,
}


class Catalogue:
    """The containers registered on one build endpoint.

    ``globus`` is by default what ``connect()`` gives, ``build_endpoint`` the deployment's. A
    ``reference`` is a name, name:tag, a container id, or an unambiguous beginning of one.

    Every method raises ``ServiceError`` when the endpoint cannot be asked, and otherwise the error
    for what the catalogue refused: ``NotFoundError``, ``SourceNotFoundError``, ``IllegalNameError``,
    ``AlreadyExistsError``, ``InUseError`` or ``CatalogueError``.
    """

    def __init__(self, globus: Globus | None = None, build_endpoint: str | None = None) -> None:
        self.globus = globus or connect()
        deployment = load_deployment(self.globus)
        if deployment is None:
            raise NotDeployedError(
                "Nothing is deployed to this Globus yet; run 'cib-flows deploy' or a first build."
            )
        self._deployment = deployment
        self.endpoint_id = build_endpoint or deployment.build_endpoint

    def history(self, name: str, limit: int = 100) -> list[dict[str, Any]]:
        """What happened to an image name, newest first: ``at``, ``event``, ``container_id``,
        ``account``, and for tags ``tag`` and ``previous``.
        """
        answer = self.ask("list_containers", {"history": name, "limit": limit})
        return list(answer.get("events") or [])

    def page(
        self,
        limit: int,
        offset: int = 0,
        *,
        name: str | None = None,
        base: str | None = None,
        package: str | None = None,
        sort: str | None = None,
    ) -> dict[str, Any]:
        """Some of the containers, and how many there are: ``containers``, ``total``,
        ``total_bytes``.
        """
        question: dict[str, Any] = {"limit": limit, "offset": offset}
        chosen = {"name": name, "base": base, "package": package, "sort": sort}
        question.update({key: value for key, value in chosen.items() if value is not None})
        return self.ask("list_containers", question)

    def list(
        self,
        limit: int | None = None,
        *,
        name: str | None = None,
        base: str | None = None,
        package: str | None = None,
        sort: str | None = None,
    ) -> list[dict[str, Any]]:
        """The containers, newest first: ``container_id, name, tags, path, sha256, bytes,
        created_at`` of each, at most ``limit`` of them.

        Only those whose name fits the pattern ``name`` (``*`` and ``?``), whose base image holds
        the text ``base``, and that were asked to have ``package`` (``numpy`` or ``numpy==2.1.0``).
        ``sort`` is ``created``, ``name`` or ``size``.
        """
        found: list[dict[str, Any]] = []
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            answer = self.page(size, len(found), name=name, base=base, package=package, sort=sort)
            rows = answer.get("containers") or []
            found.extend(rows)
            if not rows or len(found) >= int(answer.get("total") or 0):
                break
        return found

    def show(self, reference: str) -> dict[str, Any]:
        """A container's record without its longest parts, which stand in its file
        ``record_path``.
        """
        record = self.ask("list_containers", {"reference": reference}).get("container")
        if not isinstance(record, Mapping):
            raise NotFoundError(f"There is no container {reference!r}.")
        return dict(record)

    def tag(self, reference: str, name_tag: str, *, move: bool = False) -> dict[str, Any]:
        """Gives a container the further name ``name_tag``: ``name:tag``, or a tag alone.

        ``move`` takes the name away from another container that has it.
        """
        action = "move" if move else "tag"
        return self.ask(
            "tag_container", {"action": action, "reference": reference, "name_tag": name_tag}
        )

    def untag(self, name_tag: str) -> dict[str, Any]:
        """Takes the name ``name:tag`` away; the container stays until gc lets it go."""
        return self.ask("tag_container", {"action": "untag", "reference": name_tag})

    def pin(self, reference: str, why: str = "") -> dict[str, Any]:
        """Keeps a container whatever its age and the space it takes."""
        return self.ask("tag_container", {"action": "pin", "reference": reference, "why": why})

    def unpin(self, reference: str) -> dict[str, Any]:
        """Ends a pin; where there is none, nothing happens."""
        return self.ask("tag_container", {"action": "unpin", "reference": reference})

    def register(
        self,
        path: str,
        name_tag: str,
        *,
        sha256: str | None = None,
        run_endpoint: str | None = None,
        move: bool = False,
    ) -> dict[str, Any]:
        """Proves and registers an image that exists: a SIF below the endpoint's root, or one that
        came to its staging collection by Transfer. The file moves into the catalogue.

        ``sha256`` is what it must have; ``move`` takes ``name_tag`` from another container.
        """
        return self.ask(
            "register_image",
            {
                "path": path,
                "name_tag": name_tag,
                "endpoint_id": self.endpoint_id,
                "sha256": sha256,
                "run_endpoint": run_endpoint or self._deployment.run_endpoint,
                "move": move,
            },
            LONG_CALL_S,
        )

    def push(self, container: str, reference: str) -> dict[str, Any]:
        """Pushes a container's image to a registry as the ORAS artifact ``oras://HOST/NAME:TAG``;
        the answer has its ``sha256``, which whoever pulls it compares.
        """
        question = {"container": container, "reference": reference}
        return self.ask("push_image", question, LONG_CALL_S)

    def pull(
        self,
        reference: str,
        name_tag: str,
        *,
        sha256: str | None = None,
        run_endpoint: str | None = None,
        move: bool = False,
    ) -> dict[str, Any]:
        """Pulls ``oras://HOST/NAME:TAG``, or downloads an ``https://`` address, to the endpoint, then
        proves and registers it as ``register`` does. ``sha256`` is what it must have, which a download
        cannot do without. What broke off before goes on where it stopped.
        """
        if reference.startswith(("https://", "http://")):
            if sha256 is None:
                raise UsageError(
                    "A download needs the sha256 that the image must have.",
                    hint="'sha256sum FILE' prints it where the image is; give it with --sha256.",
                )
            question: dict[str, Any] = {"url": reference, "sha256": sha256}
            pulled = self.ask("download_image", question, LONG_CALL_S)
        else:
            question = {"reference": reference, "sha256": sha256}
            pulled = self.ask("pull_image", question, LONG_CALL_S)
        return self.register(
            str(pulled["path"]),
            name_tag,
            sha256=str(pulled["sha256"]),
            run_endpoint=run_endpoint,
            move=move,
        )

    def verify(self, reference: str, *, only_trust: bool = False) -> dict[str, Any]:
        """Proves a container again: no byte of image, record and documents has changed, the site's
        policy allows it (``trust`` names the signer), and the checks of its spec hold; with
        ``only_trust`` nothing is run.

        Raises ``CatalogueError`` with the sentence of what does not hold; its ``code`` is
        ``image_changed``, ``not_trusted`` or that of a failed check.
        """
        question = {"reference": reference, "only_trust": only_trust}
        return self.ask("verify_container", question, LONG_CALL_S)

    def remove(self, reference: str, *, force: bool = False) -> dict[str, Any]:
        """Moves a container to the trash, from which gc deletes it later.

        Raises ``InUseError`` while it has tags or a pin, unless ``force`` takes them away, and
        always while it is being used.
        """
        return self.ask("remove_container", {"reference": reference, "force": force})

    def lock(self, reference: str) -> dict[str, Any]:
        """The lock of a container: ``lock``, every package in it with version and hash, and its
        ``lock_sha256``.
        """
        return self.ask("container_lock", {"reference": reference})

    def keep_lock(self, lock: Mapping[str, Any]) -> str:
        """Sends a lock to the endpoint, and returns the sha256 by which a spec's ``locked`` names
        it.
        """
        answer = self.ask("container_lock", {"lock": dict(lock)})
        return str(answer["lock_sha256"])

    def diff(self, first: str, second: str, *, content: bool = False) -> dict[str, Any]:
        """What differs between two containers: ``base``, ``packages``, ``environment``, ``recipe``,
        and with ``content`` their files (``content["identical"]``).
        """
        question = {"first": first, "second": second, "content": content}
        return self.ask("diff_containers", question, LONG_CALL_S)

    def collect_garbage(
        self,
        *,
        dry_run: bool = True,
        rules: Mapping[str, float | None] | None = None,
        empty_trash: bool = False,
    ) -> dict[str, Any]:
        """Applies the site's retention rules with ``rules`` over them: ``max_bytes``,
        ``max_age_s``, ``keep_last``, ``min_age_s``, ``runs_age_s``, ``trash_age_s``,
        ``incoming_age_s``, ``cache_bytes``; with ``dry_run`` only says what would go.
        """
        return self.ask(
            "collect_garbage",
            {"dry_run": dry_run, "rules": dict(rules or {}), "empty_trash": empty_trash},
            LONG_CALL_S,
        )

    def reindex(self, *, min_age_s: float | None = None) -> dict[str, Any]:
        """Makes index, records, pointers and tags anew from the images, where they are lost."""
        chosen = {} if min_age_s is None else {"min_age_s": min_age_s}
        return self.ask("reindex_containers", chosen, LONG_CALL_S)

    def ask(
        self, function: str, question: dict[str, Any], timeout_s: float = 120.0
    ) -> dict[str, Any]:
        """Calls one of the catalogue's functions; what it refused is raised."""
        source = FlowSource.packaged()
        runs_images = function in ("register_image", "verify_container")
        if question.get("only_trust"):
            runs_images = False
        answer = call_function(
            self.globus,
            function,
            self._deployment.function_id(function),
            self.endpoint_id,
            source.build_config if runs_images else source.control_config,
            question,
            timeout_s,
        )
        if answer.get("ok"):
            return answer
        error = answer.get("error") or {}
        code = str(error.get("code") or "")
        raised = REFUSALS.get(code, CatalogueError)(
            str(error.get("message") or "The catalogue gave no answer."), error.get("hint") or None
        )
        raised.code = code or None
        raise raised
