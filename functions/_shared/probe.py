"""The program that runs inside a finished image and says what it finds there.

It writes one JSON document to the standard output that it was started with; whatever imported modules print
goes to standard error. Imports happen in a child process, so that a module that crashes Python is named.
"""

from __future__ import annotations

PROBE_SOURCE = r'''
import importlib, importlib.metadata as metadata, inspect, json, os, re, shutil, sys
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
    "packages": {name: d.version for name, d in sorted(found.items())},
    "missing": missing, "imported": imported, "failed": failed,
    "worker_program": shutil.which("globus-compute-endpoint"),
}, answer)
answer.flush()
'''
