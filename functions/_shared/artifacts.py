"""Images in registries, as ORAS artifacts: which are meant, and the engine's commands that move them."""

from __future__ import annotations

import subprocess
import tempfile
from typing import Any

from .grammars import split_image_reference
from .modules import load_modules
from .network import check_host
from .processes import clean_environment
from .registry import credentials_are_for
from .results import StepFailed, last_bytes, shorten
from .run_versions import find_apptainer

TRANSPORT_TIMEOUT_S = 3600
ORAS = "oras://"
LOOPBACK = ("127.0.0.1", "localhost")


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


def run_transport(verb: str, words: list[str], host: str, site: dict[str, Any]) -> None:
    """``apptainer push`` or ``pull``. Raises :class:`StepFailed` ``registry_denied`` or ``network``."""
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
