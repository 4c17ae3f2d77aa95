"""What SBOM, provenance and signature cost when an image is registered.

    python benchmarks/signing.py IMAGE [--rounds 5] [--json OUT]

IMAGE is a registered, unsigned image: its SBOM and provenance lie beside it. Each round does with the real
engine what ``register_container`` does on a site with a key, once for a PEM and once for an OpenPGP key.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cib_flows.functions._shared.documents import make_sbom
from cib_flows.functions._shared.files import sha256_file
from cib_flows.functions._shared.signing import Signer, signed_copy, signed_text
from cib_flows.functions._shared.site import load_site

PHRASE = "only for this measurement"


def pem_site(folder: Path) -> dict[str, Any]:
    private, public = folder / "key.pem", folder / "key.pub"
    make = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)]
    subprocess.run(make, check=True)
    private.chmod(0o600)
    show = ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(show, check=True)
    return {"sign_key": str(private), "verify_keys": [str(public)]}


def pgp_site(folder: Path) -> dict[str, Any]:
    ring, public, phrase = folder / "keys", folder / "key.asc", folder / "phrase"
    ring.mkdir(mode=0o700)
    environment = {**os.environ, "APPTAINER_KEYSDIR": str(ring)}

    def key(*words: str) -> str:
        done = subprocess.run(
            ["apptainer", "key", *words],
            env=environment,
            input="0\n",  # 'export' asks which
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    key("newpair", "-N", "n", "-E", "e@example.org", "-C", "", "-P", PHRASE, "--push=false")
    key("export", "--armor", str(public))
    phrase.write_text(PHRASE)
    phrase.chmod(0o600)
    listed = next(line for line in key("list").splitlines() if "Fingerprint:" in line)
    return {
        "sign_key": f"pgp:{listed.split()[-1]}",
        "keyring": str(ring),
        "sign_passphrase_file": str(phrase),
        "verify_keys": [str(public)],
    }


@contextmanager
def timed(figures: dict[str, list[float]], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    figures.setdefault(name, []).append(time.perf_counter() - begun)


def one_round(image: Path, place: Path, site: dict[str, Any], seconds: dict[str, Any]) -> None:
    beside: Callable[[str], Path] = image.with_suffix
    record = json.loads(beside(".json").read_text())
    lock = json.loads(beside(".lock.json").read_text())
    with timed(seconds, "hash of the image, as without a key"):
        sha256_file(str(image))
    with timed(seconds, "SBOM made of lock and verification"):
        json.dumps(make_sbom(record["name"], "latest", lock, record["verification"]))
    work = place / "image.sif"
    if not work.exists():
        os.link(image, work)  # its signed copy then lies beside it, outside the catalogue
    signer = Signer(site)
    documents = (str(beside(".sbom.json")), str(beside(".provenance.json")))
    with timed(seconds, "copy, SBOM and provenance added, signed, checked"):
        copy, _ = signed_copy(signer, str(work), *documents)
    with timed(seconds, "hash of what is published"):
        sha256_file(copy)
    with timed(seconds, "seal of the record"):
        signed_text(signer, "a list\n", str(place / "seal"))
    with timed(seconds, "signature checked before a use"):
        signer.signer_of(copy)
    os.unlink(copy)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    figures: dict[str, Any] = {"bytes": asked.image.stat().st_size}
    with (
        tempfile.TemporaryDirectory() as keys,
        tempfile.TemporaryDirectory(dir=asked.image.parents[2]) as place,
    ):
        sites = {"PEM": pem_site(Path(keys)), "OpenPGP": pgp_site(Path(keys))}
        for kind, own in sites.items():
            seconds: dict[str, list[float]] = {}
            site = {**load_site(), **own}
            one_round(asked.image, Path(place), site, {})
            for _ in range(asked.rounds):
                one_round(asked.image, Path(place), site, seconds)
            figures[kind] = seconds
            print(f"{kind}, {figures['bytes'] / 1e6:.0f} MB: seconds, median (least to most)")
            for name, values in seconds.items():
                middle = statistics.median(values)
                print(f"  {name:50s}{middle:7.3f}  ({min(values):.3f} to {max(values):.3f})")
    figures["load"] = os.getloadavg()
    print(f"load average {figures['load']}")
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
