"""The program that runs inside a finished image and says what its Python finds there.

It writes one JSON document to the standard output that it was started with; whatever imported modules print
goes to standard error. Imports happen in a child process, so that a module that crashes Python is named.
"""

from __future__ import annotations

# A package of this name lies in the home that the probe runs with, as a user's own packages would.
DECOY_MODULE = "cib_flows_decoy"

PROBE_SOURCE = r'''
import importlib, importlib.metadata as metadata, importlib.util, inspect, json, os, re, shutil, sys
answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
asked = json.loads(sys.argv[1])
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
found = {}
for distribution in metadata.distributions():
    name = distribution.metadata["Name"]
    if name:
        found.setdefault(plain(name), distribution)

def modules_of(distribution):
    """What the distribution's metadata lists: top_level.txt, else the files it installed."""
    listed = (distribution.read_text("top_level.txt") or "").split()
    if not listed:
        names = set()
        for path in distribution.files or ():
            if len(path.parts) > 1:
                # a folder such as numpy.libs holds shared libraries, not a module
                if path.suffix in (".py", ".so") and path.parts[0].isidentifier():
                    names.add(path.parts[0])
            elif inspect.getmodulename(path.name):
                names.add(inspect.getmodulename(path.name))
        listed = sorted(names)
    # tests and docs at the top level are packaging accidents, not what a user asked for
    accidents = ("tests", "test", "docs", "doc", "examples", "benchmarks")
    public = [n.replace("/", ".") for n in listed if not n.startswith("_") and n not in accidents]
    return [n for n in public if all(part.isidentifier() for part in n.split("."))]

missing, listed = [], []
for name, optional in asked["requirements"]:
    distribution = found.get(plain(name))
    if distribution is not None:
        listed += [m for m in modules_of(distribution) if m not in listed]
    elif not optional:
        missing.append(name)
modules = listed if asked["imports"] is None else asked["imports"]

reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8", buffering=1) as pipe:
        for module in modules:
            pipe.write(json.dumps(["begin", module]) + "\n")
            try:
                importlib.import_module(module)
                pipe.write(json.dumps(["end", module]) + "\n")
            except BaseException as error:
                text = type(error).__name__ + ": " + " ".join(str(error).split())[:300]
                pipe.write(json.dumps(["failed", module, text]) + "\n")
    os._exit(0)
os.close(writer)

# The child imports on another processor meanwhile.
def is_installed_by_us(distribution):
    return str(distribution.locate_file("")).startswith(asked["prefix"])

def conflicts():
    """[package, what it requires, what is there or ""] of packages that this build installed; None where the
    image has nothing that understands requirements."""
    for place in ("packaging", "pip._vendor.packaging", "setuptools._vendor.packaging"):
        try:
            requirement = importlib.import_module(place + ".requirements").Requirement
            break
        except Exception:
            continue
    else:
        return None
    wrong = []
    for name, distribution in sorted(found.items()):
        if not is_installed_by_us(distribution):
            continue
        for text in distribution.requires or ():
            try:
                needs = requirement(text)
                if needs.marker and not needs.marker.evaluate({"extra": ""}):
                    continue
                other = found.get(plain(needs.name))
                if other is None:
                    wrong.append([name, text, ""])
                elif needs.specifier and not needs.specifier.contains(other.version, prereleases=True):
                    wrong.append([name, text, other.version])
            except Exception:
                continue  # metadata that nobody can read is no conflict
    return wrong

def pip_inventory():
    """Every distribution, with the hashes that were required of it and where it came from."""
    hashes, current = {}, None
    try:
        with open(asked["prefix"] + "requirements.lock", encoding="utf-8") as lock:
            for line in lock:
                pinned = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", line)
                current = (plain(pinned[1]), pinned[2]) if pinned else current
                for digest in re.findall(r"--hash=(sha256:[0-9a-f]{64})", line):
                    hashes.setdefault(current, []).append(digest)
    except OSError:
        pass
    entries = []
    for name, distribution in sorted(found.items()):
        entry = {"name": name, "version": distribution.version or "", "in_base": not is_installed_by_us(distribution)}
        entry["hashes"] = hashes.get((name, distribution.version), [])
        try:
            origin = json.loads(distribution.read_text("direct_url.json") or "null")
            if origin and "vcs_info" in origin:
                entry["url"] = "git+" + origin["url"] + "@" + origin["vcs_info"]["commit_id"]
            elif origin and origin.get("url", "").startswith("https://"):
                entry["url"] = origin["url"]
        except Exception:
            pass
        entries.append(entry)
    return entries

def conda_inventory():
    entries, folder = [], asked["prefix"] + "conda/conda-meta"
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.endswith(".json"):
            with open(os.path.join(folder, name), encoding="utf-8") as meta:
                record = json.load(meta)
            keys = ("name", "version", "build", "channel", "subdir", "sha256", "url")
            entries.append({key: str(record.get(key) or "") for key in keys})
    return entries

wrong, pip_packages, conda_packages = conflicts(), pip_inventory(), conda_inventory()

imported, failed, begun = [], {}, None
with os.fdopen(reader, encoding="utf-8") as pipe:
    for line in pipe:
        event = json.loads(line)
        begun = event[1] if event[0] == "begin" else None
        if event[0] == "end":
            imported.append(event[1])
        elif event[0] == "failed":
            failed[event[1]] = event[2]
_, status = os.waitpid(child, 0)
if begun is not None:
    failed[begun] = "Python crashed while importing it (signal %d)" % (status & 127)
json.dump({
    "python": ".".join(map(str, sys.version_info[:3])),
    "executable": sys.executable,
    "packages": {name: d.version or "" for name, d in sorted(found.items())},
    "missing": missing, "imported": imported, "failed": failed,
    "conflicts": wrong, "pip": pip_packages, "conda": conda_packages,
    "encoding": sys.getfilesystemencoding(),
    "decoy": importlib.util.find_spec(asked["decoy"]) is not None,
}, answer)
answer.flush()
'''
