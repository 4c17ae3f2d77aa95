"""Write the site profile of this machine from what its environment says.

    python3 site_profile.py FILE --tools FOLDER [--docker-mirror HOST:PORT]

Certificates, proxies and the package index come from the variables that pip, curl and OpenSSL obey,
and from pip's own configuration. The file is readable by its owner only, since a proxy or index
address may hold a password. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

CA_VARIABLES = (
    "CIB_CA_BUNDLE",
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")


def ca_bundle(environment: Mapping[str, str], pip_configuration: Mapping[str, str]) -> str | None:
    """Return the certificate file that this machine was told to use, or None."""
    named = [environment.get(variable) for variable in CA_VARIABLES]
    for path in (*named, pip_configuration.get("global.cert")):
        if path and Path(path).is_file():
            return str(Path(path).absolute())
    return None


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the proxy variables under their lower-case names; the lower-case spelling wins."""
    found = {}
    for variable in PROXY_VARIABLES:
        value = environment.get(variable) or environment.get(variable.upper())
        if value:
            found[variable] = value
    return found


def site_profile(
    environment: Mapping[str, str],
    pip_configuration: Mapping[str, str],
    tools: str | None,
    docker_mirror: str | None,
) -> dict[str, object]:
    """Return the profile; keys about which nothing is known are left out."""
    profile: dict[str, object] = {"payload_hosts": []}
    if docker_mirror:
        profile["registry_mirrors"] = {"docker.io": docker_mirror}
    if bundle := ca_bundle(environment, pip_configuration):
        profile["ca_bundle"] = bundle
    if tools:
        profile["tools"] = tools
    if index := environment.get("PIP_INDEX_URL") or pip_configuration.get("global.index-url"):
        profile["pip_index_url"] = index
    if found := proxies(environment):
        profile["proxies"] = found
    return profile


def read_pip_configuration() -> dict[str, str]:
    """Return pip's configuration files as it reads them itself; empty when there is no pip."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=False,
    )
    settings = {}
    for line in listed.stdout.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            settings[key.strip()] = value.strip().strip("'\"")
    return settings


def write_aside(path: Path, text: str) -> None:
    """Replace `path` in one step; nobody but the owner may read it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)


def main(arguments: list[str]) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="site_profile.py")
    parser.add_argument("file", type=Path)
    parser.add_argument("--tools")
    parser.add_argument("--docker-mirror")
    options = parser.parse_args(arguments)
    tools = options.tools if options.tools and Path(options.tools).is_dir() else None
    profile = site_profile(os.environ, read_pip_configuration(), tools, options.docker_mirror)
    write_aside(options.file, json.dumps(profile, indent=2, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
