"""Images in registries, as ORAS artifacts: which are meant, and the engine's commands that move them."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import tempfile
import urllib.error
from collections.abc import Callable
from typing import IO, Any

from .grammars import split_image_reference
from .modules import load_modules
from .network import check_host
from .processes import clean_environment
from .registry import MAX_MANIFEST_BYTES, ask_registry, credentials_are_for
from .results import StepFailed, last_bytes, shorten
from .run_versions import find_apptainer

TRANSPORT_TIMEOUT_S = 3600
ORAS = "oras://"
LOOPBACK = ("127.0.0.1", "localhost")
ARTIFACT_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"
SIF_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def artifact_reference(reference: str, site: dict[str, Any]) -> tuple[str, str]:
    """``(registry host, oras reference)``. Raises :class:`StepFailed` for one that is not well formed, and for a
    host that is neither public nor named in the site's ``payload_hosts``.
    """
    plain = str(reference).removeprefix(ORAS)
    parts = split_image_reference(plain)
    first, slash, _ = plain.partition("/")
    # without a host of its own a reference would mean the public Docker registry
    if not parts or parts[3] or not slash or not ("." in first or ":" in first):
        raise StepFailed(
            "illegal_name",
            f"'{shorten(str(reference), 120)}' does not name an image in a registry.",
            "Write oras://HOST/NAME:TAG, such as oras://ghcr.io/lab/demo:v1.",
        )
    host, path, tag, _ = parts
    scheme = "http" if host.split(":")[0] in LOOPBACK else "https"
    check_host(f"{scheme}://{host}/", site, "registry_denied", "An image")
    return host, f"{ORAS}{host}/{path}:{tag or 'latest'}"


def find_image_layer(
    host: str, reference: str, site: dict[str, Any]
) -> tuple[str, Callable[[dict[str, str]], IO[bytes]]]:
    """``(sha256, opener)`` of the SIF that a checked reference means: the artifact's only layer is the file itself,
    and its digest the file's sha256.

    Raises :class:`StepFailed` ``source_not_found``, ``registry_denied``, ``registry_rate_limit``, ``image_unreadable``
    or ``network``.
    """
    path, _, tag = reference.removeprefix(f"{ORAS}{host}/").rpartition(":")
    api = f"{'http' if host.split(':')[0] in LOOPBACK else 'https'}://{host}/v2/{path}"
    may_log_in = credentials_are_for(host, site)

    def opened(address: str, headers: dict[str, str]) -> IO[bytes]:
        return ask_registry(
            address, site, headers, path, may_log_in, "registry_denied", "The image"
        )

    try:
        with opened(f"{api}/manifests/{tag}", {"Accept": ARTIFACT_MANIFEST}) as answer:
            manifest = json.loads(answer.read(MAX_MANIFEST_BYTES))
    except urllib.error.HTTPError as error:
        error.close()
        raise _artifact_refused(error.code, host, reference) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise StepFailed(
            "network", f"The registry {host} did not answer properly for {reference}: {error}."
        ) from None
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    layer = layers[0] if isinstance(layers, list) and len(layers) == 1 else {}
    digest = str(layer.get("digest")) if isinstance(layer, dict) else ""
    if not SIF_DIGEST.fullmatch(digest) or layer.get("mediaType") != SIF_LAYER:
        raise StepFailed(
            "image_unreadable",
            f"{shorten(reference, 200)} is not an image in SIF form.",
            "'cib-flows containers push' and 'apptainer push' make such artifacts; Docker images are bases of specs.",
        )
    return digest.partition(":")[2], lambda headers: opened(f"{api}/blobs/{digest}", headers)


def _artifact_refused(status: int, host: str, reference: str) -> StepFailed:
    if status in (401, 403):
        return StepFailed(
            "registry_denied",
            f"The registry {host} does not let the endpoint read {reference}.",
            "Check name, tag and login; the endpoint's login goes to 'registry_login_hosts' only.",
        )
    if status == 404:
        return StepFailed(
            "source_not_found", f"There is no {reference}.", "Check the image's name and tag."
        )
    if status == 429:
        return StepFailed(
            "registry_rate_limit",
            f"The registry {host} answers that its pull limit is used up.",
            "Try again later, or ask the endpoint's administrator for a mirror or credentials.",
        )
    return StepFailed(
        "network", f"The registry {host} answered {status} when asked for {reference}."
    )


def run_transport(verb: str, words: list[str], host: str, site: dict[str, Any]) -> None:
    """``apptainer push``. Raises :class:`StepFailed` ``registry_denied`` or ``network``."""
    load_modules(site)
    engine = find_apptainer()
    if not engine:
        raise StepFailed(
            "apptainer_missing",
            "Neither apptainer nor singularity is installed where the endpoint pushes and pulls.",
        )
    environment = clean_environment(site)
    for scheme, url in site["proxies"].items():
        environment[f"{scheme}_proxy"] = url
    if site["ca_bundle"]:
        environment["SSL_CERT_FILE"] = site["ca_bundle"]
    if not credentials_are_for(host, site):
        for key in ("APPTAINER_DOCKER_USERNAME", "APPTAINER_DOCKER_PASSWORD"):
            environment.pop(key, None)
    is_plain = host.split(":")[0] in LOOPBACK
    options = ["--no-https"] if is_plain else []
    with tempfile.TemporaryDirectory(prefix="cib-oras-") as configuration:
        # the account's own logins are not for whoever calls this
        environment["APPTAINER_CONFIGDIR"] = configuration
        environment["APPTAINER_TMPDIR"] = configuration
        try:
            done = subprocess.run(
                [engine, verb, *options, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment,
                timeout=TRANSPORT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StepFailed(
                "time_limit", f"The {verb} took longer than {TRANSPORT_TIMEOUT_S} seconds."
            ) from None
    if done.returncode == 0:
        return
    said = done.stderr.decode("utf-8", "replace")
    lowered = said.lower()
    is_denied = any(w in lowered for w in ("401", "403", "unauthorized", "denied", "not found"))
    fatal = next((line for line in said.splitlines() if "FATAL" in line), said)
    raise StepFailed(
        "registry_denied" if is_denied else "network",
        f"The registry {host} did not take part in the {verb}: "
        f"{shorten(fatal.split('FATAL:')[-1], 300)}",
        "Check name, tag and login; the endpoint's login goes to 'registry_login_hosts' only.",
        log_tail=last_bytes(said, 1500),
    )
