"""Known causes that lie with the build node, the engine, the registry or the network, by their words in a log.

Each row is ``(code, pattern, message, hint)``, as :mod:`diagnostics` reads them. Sources: apptainer 1.3 to 1.5,
the Linux kernel, go-containerregistry, fakeroot 1.2x, git, curl and OpenSSL.
"""

from __future__ import annotations

TMPDIR_HINT = "Ask the endpoint's administrator for another 'tmpdir' in the site profile"
DISK_HINT = f"{TMPDIR_HINT}, or make the image smaller."
LOCAL_DISK_HINT = f"{TMPDIR_HINT}: a disk of the node, or memory."
USERNS_HINT = (
    "Build on another node or partition, or ask the endpoint's administrator to allow unprivileged user "
    "namespaces or a setuid Apptainer."
)
MEMORY_HINT = (
    "Most often the node or the batch job has no memory left: ask the endpoint's administrator for more, or "
    "make the image smaller."
)
OWNER_HINT = "Ask the endpoint's administrator for a range in /etc/subuid and /etc/subgid, or leave the package out."
IGNORE_SUBUID_HINT = (
    "Ask the endpoint's administrator to set 'fakeroot' to 'ignore-subuid' in the site profile."
)
NETWORK_HINT = (
    "The build node may have no network: ask the endpoint's administrator for a proxy or a mirror."
)

ENGINE_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    # older releases say this of user namespaces that are used up, and no disk is full
    (
        "apptainer_unusable",
        r"(?i)user namespace.*no space left on device|no space left on device.*user namespace|"
        r"fork/exec \S+: no space left on device",
        "Apptainer may not build here: this node's user namespaces are turned off or used up.",
        USERNS_HINT,
    ),
    (
        "disk_full",
        r"(?i)(/\S*/cache/(?:blob|oci-tmp|library|oras|net)\b)\S*?:? (?:no space left on device|disk quota exceeded)",
        "Apptainer's cache of base images has no space left: {1}.",
        "Ask the endpoint's administrator to make room there, or for another 'cachedir' in the site profile.",
    ),
    (
        "disk_full",
        r"(?i)(?<!\w)(/[^\s:'\"]+)['\"]?:? (?:no space left on device|disk quota exceeded)",
        "The build ran out of disk space, when it wrote {1}.",
        DISK_HINT,
    ),
    (
        "disk_full",
        r"(?i)no space left on device|disk quota exceeded",
        "The build ran out of disk space.",
        DISK_HINT,
    ),
    (
        "out_of_memory",
        r"(?i)cannot allocate memory|virtual memory exhausted|\bout of memory\b|^MemoryError",
        "The build ran out of memory.",
        MEMORY_HINT,
    ),
    (
        "out_of_memory",
        r"Killed signal terminated program (\S+)",
        "The compiler ({1}) was killed while it worked.",
        MEMORY_HINT,
    ),
    (
        "build_killed",
        r"(?:mksquashfs|create) command failed: signal: killed",
        "The program that packs the image (mksquashfs) was killed.",
        MEMORY_HINT,
    ),
    (
        "build_killed",
        r"(?:mksquashfs|create) command failed: signal: ",
        "The program that packs the image (mksquashfs) crashed.",
        "Start the run again; if it happens again, ask the endpoint's administrator for other "
        "'mksquashfs_args' in the site profile, such as '-comp gzip'.",
    ),
    (
        "site_invalid",
        r"(?:mksquashfs|create) command failed: exit status \d+: (?:\S*mksquashfs: )?(.+?)[.!]?$",
        "The program that packs the image (mksquashfs) refused its arguments: {1}.",
        "Ask the endpoint's administrator to correct 'mksquashfs_args' in the site profile.",
    ),
    (
        "build_killed",
        r"^Killed$|: (?:line )?\d+:? +\d* ?Killed\b|%post section: (?:signal: killed|exit status 137)",
        "A program of the build was killed.",
        MEMORY_HINT,
    ),
    (
        "machine_mismatch",
        r"^Illegal instruction|: (?:line )?\d+:? +\d* ?Illegal instruction|%post section: exit status 132",
        "A program uses instructions that the build node's processor does not have.",
        "Take an older microarchitecture in 'machine', or a build endpoint with a newer processor.",
    ),
    (
        "machine_mismatch",
        r"(?i)exec format error",
        "The base image's programs are for another kind of processor than the build node's.",
        "Take a base image for this platform, or set 'machine' to the other.",
    ),
    (
        "build_killed",
        r"^Segmentation fault|: (?:line )?\d+:? +\d* ?Segmentation fault|%post section: exit status 139",
        "A program of the build crashed (segmentation fault).",
        "The log's last lines name it; its package may not fit the base image.",
    ),
    (
        "apptainer_unusable",
        r"'?new[ug]idmap'? (?:execution failed|was not found in PATH|must be owned by the root user)|"
        r"/new[ug]idmap must be owned by the root user|all with a range count lower than 65536",
        "The build node's subordinate ids cannot be used, so a build cannot become root by them.",
        "Ask the endpoint's administrator to mend newuidmap and /etc/subuid, or to set 'fakeroot' to "
        "'ignore-subuid' in the site profile.",
    ),
    (
        "apptainer_unusable",
        r"no (?:valid )?mapping entry found in /etc/sub[ug]id|"
        r"--remote, --fakeroot, or the proot command are required",
        "The endpoint's account has no range of subordinate ids, without which it cannot become root in a build here.",
        "Ask the endpoint's administrator for a range in /etc/subuid and /etc/subgid, for the proot command, or for "
        "Apptainer.",
    ),
    (
        "apptainer_unusable",
        r"mapping found but no user namespace available for fakeroot",
        "The build node allows no unprivileged user namespaces, which the build needs.",
        USERNS_HINT,
    ),
    (
        "apptainer_unusable",
        r"Could not write info to setgroups",
        "Apptainer may not build here: a security module such as AppArmor forbids it user namespaces.",
        "Ask the endpoint's administrator to install Apptainer as the distribution's package, which brings the "
        "profile that allows them.",
    ),
    (
        "apptainer_unusable",
        r"(?i)maximum number of user namespaces exceeded|not allowed to create user namespace|"
        r"requires either a suid installation or unprivileged user namespaces|user namespace disabled|"
        r"unprivileged_userns_clone",
        "Apptainer may not build here: this node does not let an ordinary user create user namespaces.",
        USERNS_HINT,
    ),
    (
        "apptainer_unusable",
        r"failed to mount proc filesystem: operation not permitted",
        "The build node is itself a container that forbids what Apptainer needs.",
        "Ask the endpoint's administrator to start it with '--security-opt seccomp=unconfined --security-opt "
        "systempaths=unconfined --device /dev/fuse', or to build on a plain node.",
    ),
    (
        "apptainer_unusable",
        r"unpackSIF failed:.*operation not permitted",
        "Apptainer could not unpack an image, because the site gives root in a build no capabilities.",
        IGNORE_SUBUID_HINT,
    ),
    (
        "apptainer_unusable",
        r"'noexec' mount option set on (\S+?),",
        "Apptainer cannot build in {1}, because that file system forbids running programs.",
        f"{TMPDIR_HINT}.",
    ),
    (
        "apptainer_unusable",
        r"/dev/fuse: (?:Permission denied|No such file)|fuse: device not found",
        "The build node has no FUSE that an ordinary user may use, and Apptainer needs it.",
        "Ask the endpoint's administrator to allow /dev/fuse on the build nodes.",
    ),
    (
        "apptainer_unusable",
        r"destination (\S+) doesn't exist in container",
        "The base image has no {1}, which the build needs as a mount point.",
        "Take a base image with the usual folders.",
    ),
    (
        "fakeroot_failed",
        r"faked: .*version `?'?(GLIBC_[0-9.]+)'? not found",
        "The build node's fakeroot command needs {1}, which the base image does not have.",
        "Take a newer base image, or ask the endpoint's administrator to set 'fakeroot' to "
        "'ignore-fakeroot-command' in the site profile.",
    ),
    (
        "fakeroot_failed",
        r"faked: not found|error while starting the .?faked|fakeroot.*getopt: (?:command )?not found",
        "The build node's fakeroot command does not run in the base image.",
        "Take a base image of Debian or Ubuntu, or ask the endpoint's administrator to set 'fakeroot' to "
        "'ignore-fakeroot-command' in the site profile.",
    ),
    (
        "ownership_refused",
        r"E: setgroups \d+ failed|E: sete?[ug]id \d+ failed|chown to _apt:root",
        "apt could not become its own user, because the build node maps only one user into builds.",
        OWNER_HINT,
    ),
    (
        "ownership_refused",
        r"[Cc]annot change ownership to uid|cpio: chown failed|changing ownership of .*: Invalid argument",
        "A package's files belong to users that the build node does not map into builds.",
        OWNER_HINT,
    ),
    (
        "ownership_refused",
        r"(?:group|user)add: failure while writing changes to (\S+)",
        "A package could not add its user or group: {1} cannot be replaced in this build.",
        OWNER_HINT,
    ),
    (
        "tmpdir_unusable",
        r"ownership change not allowed in (\S+?),? aborting",
        "Builds cannot unpack in {1}, because its file system does not let owners be changed.",
        LOCAL_DISK_HINT,
    ),
    (
        "tmpdir_unusable",
        r"mkdir \S+/rootfs: no such file or directory|\blchown \S+: operation not permitted|"
        r"create regular: .*permission denied",
        "The folder in which builds unpack is on a file system that cannot hold an image's files.",
        LOCAL_DISK_HINT,
    ),
    (
        "tmpdir_unusable",
        r"l(?:list|set)xattr.*(?:permission denied|operation not supported)",
        "The folder in which builds unpack is on a file system without extended attributes.",
        LOCAL_DISK_HINT,
    ),
    (
        "tmpdir_unusable",
        r"(?i)too many open files",
        "The build node may not hold as many files open as unpacking the base image takes.",
        LOCAL_DISK_HINT,
    ),
    (
        "already_exists",
        r"build target '?(\S+?)'? already exists",
        "The build's target {1} is already there.",
        "Start the run again, which takes a folder of its own.",
    ),
    (
        "command_failed",
        r"failed to execute %test script",
        "The image was built, and the test in its recipe failed.",
        "The log's last lines say what the test printed.",
    ),
    (
        "registry_rate_limit",
        r"(?i)toomanyrequests|pull rate limit|conveyor failed.*429 Too Many Requests",
        "The registry answers that its pull limit is used up.",
        "Try again later, or ask the endpoint's administrator for a mirror or credentials.",
    ),
    (
        "base_not_found",
        r"(?i)MANIFEST_UNKNOWN|manifest unknown|NAME_UNKNOWN|conveyor failed.*404 Not Found",
        "The base image does not exist in its registry.",
        "Check the image's name and tag in 'base.image'.",
    ),
    (
        "base_not_found",
        r"no child with platform (\S+) in index",
        "The base image is not made for this platform ({1}).",
        "Take another base image, or another platform in 'machine'.",
    ),
    (
        "registry_denied",
        r"(?i)UNAUTHORIZED: authentication required|denied: requested access|"
        r"conveyor failed.*(?:401 Unauthorized|403 Forbidden)",
        "The registry does not let the endpoint read the base image.",
        "Check the image's name, or ask the endpoint's administrator to set the registry's credentials.",
    ),
    (
        "image_unreadable",
        r"conveyor failed to get: .*image format not recognized",
        "The base image is not a file that Apptainer can open.",
        "Check 'base.bootstrap' and 'base.image'.",
    ),
    (
        "network",
        r"conveyor failed to get: .*(?:unexpected EOF|error verifying \S+ checksum)",
        "The base image did not arrive whole.",
        "Start the run again; if it happens again, the registry or the proxy on the way damages it.",
    ),
    (
        "network",
        r"(?i)Temporary failure (?:in name resolution|resolving '([^']+)')|could not resolve host|"
        r"name or service not known|failed to lookup address|no address associated with hostname|"
        r"dial tcp: lookup .*no such host",
        "A host name could not be resolved during the build.",
        NETWORK_HINT,
    ),
    (
        "network",
        r"(?i)certificate (?:has expired|is not yet valid)|certificate not valid (?:yet|at this time)|"
        r"invalid peer certificate: (?:Expired|NotValidYet)",
        "A server's certificate is not valid at the build node's date.",
        "Ask the endpoint's administrator whether the node's clock is right; else the server must renew it.",
    ),
    (
        "network",
        r"(?i)certificate verify failed|invalid peer certificate|UnknownIssuer|"
        r"certificate signed by unknown authority|self[- ]signed certificate|certificate verification failed",
        "A server's certificate is not trusted inside the build.",
        "The site may need its own certificates: its administrator sets 'ca_bundle' in the site profile.",
    ),
    (
        "network",
        r"(?i)proxy authentication required|tunnel connection failed|from proxy after CONNECT|"
        r"cannot connect to proxy|proxyconnect tcp",
        "The proxy does not let the build reach the network.",
        "Ask the endpoint's administrator to correct 'proxies' in the site profile.",
    ),
    (
        "network",
        r"(?i)\bconnection (?:refused|timed out|reset by peer)|network is unreachable|no route to host|"
        r"TLS handshake timeout|dial tcp .*i/o timeout|read timed out",
        "A server could not be reached during the build.",
        NETWORK_HINT,
    ),
)
