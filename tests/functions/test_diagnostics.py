# ruff: noqa: E501 - the lines of the tools stay as long as they are
"""Every signature against the words of the tools themselves."""

from __future__ import annotations

import re

import pytest

from cib_flows.functions._shared.diagnostics import ROWS, diagnose
from cib_flows.functions._shared.engine import killed_by
from cib_flows.functions._shared.results import ERROR_CODES

APT = """\
Reading package lists...
Building dependency tree...
"""
UV_MISSING = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because nosuchpackage was not found in the package registry and you
      require nosuchpackage, we can conclude that your requirements are
      unsatisfiable.
FATAL:   While performing build: while running %post section: exit status 1
"""
UV_VERSION = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because there is no version of pandas==99.1 and you require
      pandas==99.1, we can conclude that your requirements are unsatisfiable.
"""
UV_CONFLICT = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because botocore==1.29.0 depends on urllib3>=1.25.4,<1.27 and you require urllib3==2.0, we can
      conclude that your requirements are unsatisfiable.
"""
PIP_MISSING = """\
Looking in indexes: https://pypi.example.org/simple
ERROR: Could not find a version that satisfies the requirement nosuchpackage (from versions: none)
ERROR: No matching distribution found for nosuchpackage
FATAL:   While performing build: while running %post section: exit status 1
"""
PIP_VERSION = """\
ERROR: Could not find a version that satisfies the requirement pandas==99.1 (from versions: 0.1, 2.2.3)
ERROR: No matching distribution found for pandas==99.1
"""
PIP_CONFLICT = """\
ERROR: Cannot install botocore==1.29.0 and urllib3==2.0 because these package versions have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit the documentation
"""
# A log, the code it must give, and what the sentence must name.
LOGS: list[tuple[str, str, str]] = [
    (APT + "E: Unable to locate package gti\nFATAL:   While performing build: exit status 100\n", "apt_package_not_found", "'gti'"),
    (APT + "E: Couldn't find any package by glob 'libpng99.*'\n", "apt_package_not_found", "'libpng99.*'"),
    (APT + "E: Couldn't find any package by regex 'libpng99.0'\n", "apt_package_not_found", "'libpng99.0'"),
    (APT + "Package python2 is not available, but is referred to by another package.\nE: Package 'python2' has no installation candidate\n", "apt_package_not_found", "'python2'"),
    (APT + "E: Version '99' for 'git' was not found\n", "apt_package_not_found", "'git' has no version 99"),
    (UV_MISSING, "pip_package_not_found", "'nosuchpackage'"),
    ("error: Because x was not found in the provided package locations\n", "pip_package_not_found", "'x'"),
    (UV_VERSION, "pip_package_not_found", "'pandas==99.1'"),
    (UV_CONFLICT, "pip_conflict", "urllib3"),
    ("  × No solution found when resolving dependencies:\n  ╰─▶ (reasons)\n", "pip_conflict", "cannot be installed together"),
    (PIP_MISSING, "pip_package_not_found", "'nosuchpackage'"),
    (PIP_VERSION, "pip_package_not_found", "'pandas==99.1'"),
    (PIP_CONFLICT, "pip_conflict", "botocore==1.29.0 and urllib3==2.0"),
    ("  error: command 'gcc' failed: No such file or directory\n  ERROR: Failed building wheel for x\nERROR: Failed to build installable wheels for some pyproject.toml based projects (mpi4py)\n", "pip_failed", ""),
    ("  × Failed to build `mpi4py==4.0.0`\n  ├─▶ The build backend returned an error\n", "pip_failed", "'mpi4py"),
    ("error    libmamba Could not solve for environment specs\nnothing provides requested nosuch 1.0**\n", "conda_package_not_found", "nosuch 1.0"),
    ("Cannot solve the request because of: No candidates were found for nosuch *.\n", "conda_package_not_found", "nosuch"),
    ("PackagesNotFoundError: The following packages are not available from current channels:\n", "conda_package_not_found", ""),
    ("FATAL:   While performing build: conveyor failed to get: toomanyrequests: You have reached your unauthenticated pull rate limit.\n", "registry_rate_limit", ""),
    ("FATAL:   While performing build: conveyor failed to get: GET https://r.example.org/v2/x/manifests/1: MANIFEST_UNKNOWN: manifest unknown\n", "base_not_found", ""),
    ("FATAL:   While performing build: conveyor failed to get: GET https://r.example.org/v2/: UNAUTHORIZED: authentication required\n", "registry_denied", ""),
    ("FATAL:   Building from a definition file unprivileged requires either a suid installation or unprivileged user namespaces\n", "apptainer_unusable", "user namespaces"),
    ("ERROR  : Failed to create user namespace: maximum number of user namespaces exceeded, check /proc/sys/user/max_user_namespaces\n", "apptainer_unusable", "user namespaces"),
    ("ERROR : 'newgidmap' execution failed. Check that 'newgidmap' is setuid root or has setcap cap_setgid+eip.\n", "apptainer_unusable", "subordinate ids"),
    ("FATAL:   newuidmap was not found in PATH (/usr/bin)\n", "apptainer_unusable", "subordinate ids"),
    ("FATAL:   /etc/subuid mapping found but no user namespace available for fakeroot\n", "apptainer_unusable", "user namespaces"),
    ("FATAL:   While performing build: 'noexec' mount option set on /scratch, temporary root filesystem won't be usable at this location\n", "apptainer_unusable", "/scratch"),
    ("FATAL:   container creation failed: mount /opt/cray->/opt/cray error: destination /opt/cray doesn't exist in container\n", "apptainer_unusable", "/opt/cray"),
    ("FATAL:   While performing build: packer failed to pack: write /tmp/build-temp-1/x: no space left on device\n", "disk_full", "disk space"),
    ("tar: x: Cannot write: Disk quota exceeded\n", "disk_full", "disk space"),
    ("FATAL:   While performing build: packer failed to pack: write /local/t/build-temp-1/x: no space left on device\n", "disk_full", "wrote /local/t/build-temp-1/x"),
    ("FATAL:   While performing build: conveyor failed to get: write /home/ada/.apptainer/cache/blob/blobs/sha256/ab12: disk quota exceeded\n", "disk_full", "cache of base images has no space left: /home/ada/.apptainer/cache/blob"),
    ("FATAL:   While performing build: while running engine: while running %post section: exit status 100\n", "apt_failed", "apt ended"),
    # SingularityCE
    ("FATAL:   --remote, --fakeroot, or the proot command are required to build this source as a non-root user\n", "apptainer_unusable", "subordinate ids"),
    ("FATAL:   could not use fakeroot: no mapping entry found in /etc/subuid for ada\n", "apptainer_unusable", "subordinate ids"),
    ("Err:1 http://deb.example.org/debian bookworm InRelease\n  Temporary failure resolving 'deb.example.org'\nE: Unable to locate package git\n", "network", "resolved"),
    ("fatal: unable to access 'https://x/': Could not resolve host: x\n", "network", "resolved"),
    ("SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate\n", "network", "certificate"),
    ("error: invalid peer certificate: UnknownIssuer\n", "network", "certificate"),
    ("/.post.script: 12: nosuch: not found\nFATAL:   While performing build: while running %post section: exit status 127\n", "command_failed", "does not exist"),
    # apptainer.md, section 2: what the engine says of a node that cannot do it
    ("ERROR  : Failed to create user namespace: No space left on device\n", "apptainer_unusable", "user namespaces"),
    ("FATAL:   While performing build: fork/exec /usr/libexec/apptainer/bin/starter: no space left on device\n", "apptainer_unusable", "user namespaces"),
    ("ERROR  : Failed to create user namespace: not allowed to create user namespace\n", "apptainer_unusable", "user namespaces"),
    ("FATAL:   user namespace requires to set /proc/sys/kernel/unprivileged_userns_clone to 1\n", "apptainer_unusable", "user namespaces"),
    ("ERROR  : Failed to create user namespace: user namespace disabled\n", "apptainer_unusable", "user namespaces"),
    ("INFO:    User not listed in /etc/subuid, trying root-mapped namespace\nERROR  : Could not write info to setgroups: Permission denied\nERROR  : Error while waiting event for user namespace mappings: Success\n", "apptainer_unusable", "AppArmor"),
    ("FATAL:   --fakeroot: /etc/subuid mapping found but no user namespace available for fakeroot\n", "apptainer_unusable", "user namespaces"),
    ("FATAL:   could not use fakeroot: no valid mapping entry found in /etc/subuid for ada, all with a range count lower than 65536\n", "apptainer_unusable", "subordinate ids"),
    ("ERROR  : newuidmap was not found in PATH (/usr/bin:/bin), required with fakeroot and unprivileged installation\n", "apptainer_unusable", "subordinate ids"),
    ("ERROR  : 'newgidmap' execution failed. Check that 'newgidmap' is setuid root, or has setcap cap_setgid+eip.\n", "apptainer_unusable", "subordinate ids"),
    ("FATAL:   container creation failed: mount hook function failure: mount proc->/proc error: while mounting proc: failed to mount proc filesystem: operation not permitted\n", "apptainer_unusable", "itself a container"),
    ("FATAL:   While performing build: unpackSIF failed: root filesystem extraction failed: extract command failed: ... lchown: operation not permitted\n", "apptainer_unusable", "capabilities"),
    ("fusermount: failed to open /dev/fuse: Permission denied\n", "apptainer_unusable", "FUSE"),
    ("WARNING: ownership change not allowed in /scratch/nfs/tmp/build-temp-1, aborting\nFATAL:   While performing build: cannot make the root file system\n", "tmpdir_unusable", "/scratch/nfs/tmp/build-temp-1"),
    ("FATAL:   While performing build: unable to build: mkdir /lustre/tmp/build-temp-7/rootfs: no such file or directory\n", "tmpdir_unusable", "file system"),
    ("FATAL:   While performing build: conveyor failed to get: while extracting layer: lchown /nfs/t/rootfs/etc/shadow: operation not permitted\n", "tmpdir_unusable", "file system"),
    ("FATAL:   While performing build: packer failed to pack: error unpacking: unpack entry: usr/bin/x: create regular: open /gpfs/t/usr/bin/x: permission denied\n", "tmpdir_unusable", "file system"),
    ("FATAL:   While performing build: packer failed to pack: unpack entry: etc: apply metadata: unpriv.llistxattr: permission denied\n", "tmpdir_unusable", "extended attributes"),
    ("FATAL:   unpack: lsetxattr /t/x security.capability: operation not supported\n", "tmpdir_unusable", "extended attributes"),
    ("FATAL:   While performing build: unpackSIF failed: extract command failed: FATAL ERROR: unsquashfs: failed to create file, because Too many open files in system\n", "tmpdir_unusable", "files open"),
    ("/.singularity.d/libs/faked: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /.singularity.d/libs/faked)\nfakeroot: error while starting the `faked' daemon.\n", "fakeroot_failed", "GLIBC_2.38"),
    ("/.singularity.d/libs/fakeroot: line 155: /.singularity.d/libs/faked: not found\n", "fakeroot_failed", "fakeroot"),
    ("/.singularity.d/libs/fakeroot: line 51: getopt: command not found\n", "fakeroot_failed", "fakeroot"),
    ("fakeroot: error while starting the `faked' daemon.\n", "fakeroot_failed", "fakeroot"),
    ("E: setgroups 65534 failed - setgroups (1: Operation not permitted)\nE: Method gave invalid 400 URI Failure message\n", "ownership_refused", "one user"),
    ("E: seteuid 100 failed - seteuid (22: Invalid argument)\n", "ownership_refused", "one user"),
    ("W: chown to _apt:root of directory /var/lib/apt/lists/partial failed - SetupAPTPartialDirectory (22: Invalid argument)\n", "ownership_refused", "one user"),
    ("tar: usr/share/x: Cannot change ownership to uid 1000, gid 1000: Invalid argument\n", "ownership_refused", "users"),
    ("error: unpacking of archive failed on file /usr/bin/x: cpio: chown failed - Invalid argument\n", "ownership_refused", "users"),
    ("chown: changing ownership of '/var/lib/postgresql': Invalid argument\n", "ownership_refused", "users"),
    ("Setting up openssh-client (1:9.2p1-2) ...\ngroupadd: failure while writing changes to /etc/group\ndpkg: error processing package openssh-client (--configure):\n", "ownership_refused", "/etc/group"),
    ("FATAL:   While performing build: failed to execute %test script: exit status 1\n", "command_failed", "test"),
    ("FATAL:   While checking build target: build target 'x.sif' already exists. Use --force if you want to overwrite it\n", "already_exists", "x.sif"),
    # killed and crashed
    ("/.post.script: line 41:   812 Killed                  python3 big.py\nFATAL:   While performing build: while running engine: while running %post section: exit status 137\n", "build_killed", "killed"),
    ("Killed\nFATAL:   While performing build: while running %post section: exit status 137\n", "build_killed", "killed"),
    ("FATAL:   While performing build: while running %post section: signal: killed\n", "build_killed", "killed"),
    ("FATAL:   While performing build: while creating squashfs: /usr/bin/mksquashfs command failed: signal: killed: \n", "build_killed", "mksquashfs"),
    ("FATAL:   While performing build: while creating squashfs: /usr/bin/mksquashfs command failed: signal: segmentation fault (core dumped): \n", "build_killed", "mksquashfs"),
    ("FATAL:   While performing build: while creating squashfs: /usr/bin/mksquashfs command failed: exit status 1: /usr/bin/mksquashfs: Compressor \"nonsense\" is not supported!\n", "site_invalid", 'Compressor "nonsense" is not supported.'),
    ("Segmentation fault\nFATAL:   While performing build: while running %post section: exit status 139\n", "build_killed", "segmentation fault"),
    ("Illegal instruction (core dumped)\n", "machine_mismatch", "processor"),
    ("FATAL:   While performing build: while running %post section: exec /bin/sh failed: exec format error\n", "machine_mismatch", "another kind of processor"),
    ("cc1plus: out of memory allocating 65536 bytes after a total of 1 bytes\n", "out_of_memory", "memory"),
    ("g++: fatal error: Killed signal terminated program cc1plus\n", "out_of_memory", "cc1plus"),
    ("/bin/sh: 1: Cannot fork: Cannot allocate memory\n", "out_of_memory", "memory"),
    # registries
    ("FATAL:   While performing build: conveyor failed to get: GET https://r.example.org/v2/x/manifests/1: unexpected status code 403 Forbidden: no\n", "registry_denied", "registry"),
    ("FATAL:   While performing build: conveyor failed to get: no child with platform linux/amd64 in index r.example.org/x:1\n", "base_not_found", "linux/amd64"),
    ("FATAL:   While performing build: conveyor failed to get: while fetching library image: image format not recognized\n", "image_unreadable", "base image"),
    ("FATAL:   While performing build: conveyor failed to get: error writing layer: unexpected EOF\n", "network", "whole"),
    # the network
    ("FATAL:   While performing build: conveyor failed to get: Get \"https://r.example.org/v2/\": dial tcp: lookup r.example.org on 10.0.0.2:53: no such host\n", "network", "resolved"),
    ("error: Request failed after 3 retries in 10.5s\n  cause: Failed to fetch: https://x.example.org/simple/six/\n  cause: dns error\n  cause: failed to lookup address information: Name or service not known\n", "network", "resolved"),
    ("error: Request failed after 3 retries in 9.5s\n  cause: tcp connect error\n  cause: Connection refused (os error 111)\n", "network", "reached"),
    ("Err:1 http://deb.example.org/debian bookworm InRelease\n  Could not connect to 10.1.1.1:80 (10.1.1.1), connection timed out\nE: Unable to locate package git\n", "network", "reached"),
    ("FATAL:   conveyor failed to get: Get \"https://r.example.org/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority\n", "network", "certificate"),
    ("curl: (60) SSL certificate problem: self-signed certificate in certificate chain\n", "network", "certificate"),
    ("FATAL:   x509: certificate has expired or is not yet valid: current time 2019-01-01T00:00:00Z is before 2026-01-01T00:00:00Z\n", "network", "date"),
    ("  cause: invalid peer certificate: Expired\n", "network", "date"),
    ("curl: (56) Received HTTP code 407 from proxy after CONNECT\n", "network", "proxy"),
    ("WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 403 Forbidden'))': /simple/six/\n", "network", "proxy"),
    # apt and dpkg
    ("E: Release file for http://deb.example.org/debian/dists/bookworm-updates/InRelease is not valid yet (invalid for another 3h 20min 5s). Updates for this repository will not be applied.\n", "apt_failed", "clock"),
    ("E: Release file for http://deb.example.org/debian/dists/bookworm-updates/InRelease is expired (invalid since 3d 2h 1min 5s). Updates for this repository will not be applied.\n", "apt_failed", "too old"),
    ("Err:4 http://deb.example.org/debian stretch Release\n  404  Not Found\nE: The repository 'http://deb.example.org/debian stretch Release' does not have a Release file.\n", "apt_failed", "stretch"),
    ("W: GPG error: http://r.example.org stable InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY A4B469963BF863CC\nE: The repository 'http://r.example.org stable InRelease' is not signed.\n", "apt_failed", "A4B469963BF863CC"),
    ("E: The repository 'http://r.example.org stable InRelease' is not signed.\n", "apt_failed", "http://r.example.org stable"),
    ("E: Failed to fetch http://deb.example.org/pool/x.deb  Hash Sum mismatch\n", "apt_failed", "other contents"),
    ("Err:3 http://deb.example.org/debian bookworm/main amd64 git\n  404  Not Found [IP: 10.1.1.1 80]\nE: Failed to fetch http://deb.example.org/debian/pool/git_2.39.deb  404  Not Found [IP: 10.1.1.1 80]\n", "apt_failed", "git_2.39.deb"),
    ("The following packages have unmet dependencies:\n libc6-dev : Depends: libc6 (= 2.36-9) but 2.36-10 is to be installed\nE: Unable to correct problems, you have held broken packages.\n", "apt_failed", "together"),
    ("dpkg: error processing package tzdata (--configure):\n installed tzdata package post-installation script subprocess returned error exit status 1\n", "apt_failed", "tzdata"),
    # pip and uv
    ("error: No solution found when resolving dependencies\n  cause: Because the current Python version (3.11.2) does not satisfy Python>=3.13 and cib-newer==1.0 depends on Python>=3.13, we can conclude that cib-newer==1.0 cannot be used.\n", "pip_package_not_found", "cib-newer==1.0 needs Python >=3.13, and the image has 3.11.2"),
    ("ERROR: Ignored the following versions that require a different python version: 1.0 Requires-Python >=3.13; 1.1 Requires-Python >=3.14\nERROR: Could not find a version that satisfies the requirement cib-newer (from versions: none)\n", "pip_package_not_found", ">=3.13"),
    ("ERROR: Ignored the following versions that require a different python version: 3.0 Requires-Python >=3.12\nERROR: Could not find a version that satisfies the requirement pandas==99.1 (from versions: 0.1, 2.2.3)\n", "pip_package_not_found", "'pandas==99.1'"),
    ("ERROR: Package 'cib-newer' requires a different Python: 3.11.2 not in '>=3.13'\n", "pip_package_not_found", ">=3.13"),
    ("  cause: Because only pywin32>=303 is available and pywin32>=303 has no wheels with a matching platform tag (e.g., `manylinux_2_36_x86_64`)\n", "pip_package_not_found", "platform"),
    ("ERROR: x-1.0-cp39-cp39-win_amd64.whl is not a supported wheel on this platform.\n", "pip_package_not_found", "x-1.0-cp39"),
    ("  ERROR: Error [Errno 2] No such file or directory: 'git' while executing command git version\nERROR: Cannot find command 'git' - do you have 'git' installed and in your PATH?\n", "pip_failed", "no git"),
    ("error: Failed to download and build `x @ git+https://h.example.org/x.git`\n  cause: Git operation failed\n  cause: Git executable not found. Ensure that Git is installed and available.\n", "pip_failed", "no git"),
    ("  fatal: could not read Username for 'https://git.example.org': terminal prompts disabled\n", "pip_failed", "https://git.example.org"),
    ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n", "pip_failed", "sha256"),
    ("error: Failed to download `six==1.16.0`\n  cause: Hash mismatch for `six==1.16.0`\n", "pip_failed", "sha256"),
    ("  x Failed to build `cib-sdist==1.0`\n  error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory\n", "pip_failed", "no compiler (x86_64-linux-gnu-gcc)"),
    ("  unable to execute 'gcc': No such file or directory\n", "pip_failed", "no compiler"),
    ("../meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc'], ['clang']]\n", "pip_failed", "no compiler"),
    ("  No CMAKE_C_COMPILER could be found.\n", "pip_failed", "no compiler"),
    ("  error: can't find Rust compiler\n", "pip_failed", "Rust"),
    ("  src/x.c:1:10: fatal error: Python.h: No such file or directory\n", "pip_failed", "header files of Python"),
    ("  src/x.c:3:10: fatal error: hdf5.h: No such file or directory\n", "pip_failed", "hdf5.h"),
    ("  /usr/bin/ld: cannot find -lpq: No such file or directory\n", "pip_failed", "pq"),
    ("error: Failed to fetch: `https://pypi.example.org/simple/six/`\n  Caused by: HTTP status client error (403 Forbidden) for url (https://pypi.example.org/simple/six/)\n", "pip_failed", "403 Forbidden"),
    # conda and Spack
    ("error    libmamba Could not solve for environment specs\n    The following packages are incompatible\n", "conda_failed", "together"),
    ("nothing provides requested: Cannot solve the request because of: The following packages are incompatible ├─ old-user * can be installed with any of the following options: │ └─ old-user 1.0 would require │ └─ hello-program <1.0\n", "conda_failed", "together"),
    ("CondaHTTPError: HTTP 404 NOT FOUND for url <https://conda.example.org/x/noarch/repodata.json>\n", "conda_failed", "channel"),
    ("nothing provides requested: error sending request for url (https://conda.example.org/x/noarch/repodata_shards.msgpack.zst) Caused by: tcp connect error Caused by: Connection refused (os error 111)\n", "network", "reached"),
    ("nothing provides requested: Cannot solve the request because of: gpu-program * cannot be installed because there are no viable options: └─ gpu-program 1.0 would require └─ __cuda >=12, for which no candidates were found.\n", "conda_package_not_found", "GPU"),
    ("nothing provides requested: Cannot solve the request because of: a * cannot be installed because there are no viable options: └─ a 1.0 would require └─ b >=12, for which no candidates were found.\n", "conda_package_not_found", "needs b >=12"),
    ("         [stderr]\n         error: [Errno 2] No such file or directory: 'x86_64-linux-gnu-gcc'\n", "pip_failed", "no compiler (x86_64-linux-gnu-gcc)"),
    ("==> Error: Package 'hdf6' not found.\n", "spack_failed", "hdf6"),
]  # fmt: skip


@pytest.mark.parametrize(("log", "code", "named"), LOGS, ids=range(len(LOGS)))
def test_a_known_cause_is_named(log: str, code: str, named: str) -> None:
    found, message, hint = diagnose("INFO:    Starting build...\n" + log)
    assert found == code
    assert named in message
    assert message.endswith(".")
    assert hint.endswith(".")
    assert "{" not in message


def test_every_row_has_a_log_and_a_code_of_the_list() -> None:
    lines = [line for log, _, _ in LOGS for line in log.splitlines()]
    for code, pattern, _, _ in ROWS:
        assert code in ERROR_CODES
        assert any(re.search(pattern, line) for line in lines), pattern


def test_the_first_telling_line_counts() -> None:
    first = "E: Unable to locate package first\n"
    assert "'first'" in diagnose(first + "E: Unable to locate package second\n" + UV_MISSING)[1]
    assert diagnose("write: No space left on device\n" + first)[0] == "disk_full"
    assert diagnose(first + "write: No space left on device\n")[0] == "apt_package_not_found"


def test_at_least_25_causes_are_known() -> None:
    assert len({message for _, _, message, _ in ROWS}) >= 25


# What tools print while they work, and what only sounds like a cause.
WARNINGS = """\
INFO:    Cache disabled - cache location /home/ada/.apptainer/cache is not writable.
INFO:    Converting SIF file to temporary sandbox...
WARNING: 'nodev' mount option set on /tmp, it could be a source of failure during build process
WARNING: Retrying (Retry(total=4, connect=None, read=None)) after connection broken by 'ReadTimeoutError("HTTPSConnectionPool(host='x'): Read timed out. (read timeout=15)")': /simple/six/
gcc -pthread -c src/memory.c -o build/out-of-memory.o
checking for connection handling... yes
Unpacking libkilled-perl ...
==> pip
debconf: delaying package configuration, since apt-utils is not installed
W: Some index files failed to download. They have been ignored, or old ones used instead.
"""


def test_an_unknown_cause_is_not_guessed() -> None:
    assert diagnose("all is well\n")[0] == "build_failed"
    assert diagnose("")[0] == "build_failed"
    ended = "FATAL:   While performing build: while running %post section: exit status 3\n"
    assert diagnose(WARNINGS + "it did not work\n" + ended)[0] == "build_failed"


def test_a_warning_does_not_hide_the_cause() -> None:
    missing = "E: Unable to locate package gti\n"
    assert diagnose(WARNINGS + missing)[0] == "apt_package_not_found"


def test_that_something_failed_says_less_than_why() -> None:
    weak = "  x Failed to build `cib-sdist==1.0`\n"
    assert (
        "no compiler"
        in diagnose(weak + "error: command 'gcc' failed: No such file or directory\n")[1]
    )
    assert "'cib-sdist" in diagnose(weak)[1]


@pytest.mark.parametrize("status", [-1, 0, 1, 128, 255, None])
def test_a_status_that_is_no_signal_says_nothing(status: int | None) -> None:
    assert killed_by(status) is None


def test_a_status_above_128_names_its_signal() -> None:
    killed = killed_by(137)
    assert killed is not None
    assert killed[0] == "build_killed"
    assert "SIGKILL" in killed[1]


def test_a_log_that_is_one_endless_line_is_read_quickly() -> None:
    """Bounded work, not a measured time: the patterns see the line's beginning only."""
    line = "Because only no version " + "a" * 2_000_000
    assert diagnose(line)[0] == "build_failed"


def test_what_a_log_says_is_shown_on_one_bounded_line() -> None:
    _, message, _ = diagnose("E: Unable to locate package " + "x" * 5000 + "\n")
    assert len(message) < 400
