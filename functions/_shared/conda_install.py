"""The program that installs conda packages inside a build, where neither the base image nor the site has conda.

It runs in ``%post`` with the image's own Python and the py-rattler package that the site lends in its tools
folder; the text below goes there unchanged. Written against py-rattler 0.10 to 0.28.
"""

from __future__ import annotations

CONDA_INSTALL_SOURCE = r"""
import argparse, asyncio, os, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "tools", "rattler"))
import rattler

def detected():
    # what conda calls the machine is what the recipe says of it, not what the build node happens to be
    overrides = getattr(rattler, "VirtualPackageOverrides", None)
    if overrides is None:
        return rattler.VirtualPackage.detect()
    return rattler.VirtualPackage.detect(overrides.from_env())

async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", required=True)
    parser.add_argument("-c", dest="channels", action="append", default=[])
    parser.add_argument("specs", nargs="+")
    asked = parser.parse_args()
    # conda's own short name for its maker's channel, which others do not know
    known = {"defaults": "https://repo.anaconda.com/pkgs/main"}
    channels = [rattler.Channel(known.get(name, name)) for name in asked.channels]
    machine = {"x86_64": "linux-64", "aarch64": "linux-aarch64", "ppc64le": "linux-ppc64le"}
    platforms = [machine.get(os.uname().machine, "linux-64"), "noarch"]
    try:
        records = await rattler.solve(
            channels, asked.specs, platforms=platforms,
            virtual_packages=detected(),
            constraints=["python >=3.10"],
        )
    except Exception as error:
        reason = " ".join(str(error).split())
        print("nothing provides requested: " + reason, file=sys.stderr)
        sys.exit(1)
    await rattler.install(records, target_prefix=asked.prefix, show_progress=False)
    for record in records:
        print("installed", record.name.normalized, record.version, record.build, flush=True)
    # rattler's threads may still be there, and one that wakes while the interpreter ends would abort it
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

asyncio.run(main())
"""
