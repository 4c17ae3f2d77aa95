"""Known causes that lie with the packages a spec asks for, by the installers' words in a log.

Each row is ``(code, pattern, message, hint)``, as :mod:`diagnostics` reads them. Sources: apt 2.x and dpkg 1.2x,
pip 23 to 26, uv 0.5 to 0.12, setuptools, meson, cmake, rattler, libmamba and conda, Spack 0.2x.
"""

from __future__ import annotations

APT_HINT = "Check its spelling in 'apt'; names differ between releases."
PIP_HINT = "Check its spelling in 'pip'."
RELAX_HINT = "Relax the version in 'pip', or take a base with another Python."
MIRROR_HINT = (
    "Start the run again in a while: the package server or a mirror of it is being changed; if it happens "
    "again, take a newer tag of the base image."
)
COMPILER_HINT = "Add 'build-essential' and 'python3-dev' to 'apt', or take a version of the package that has a wheel."
HEADER_HINT = "Add the library's '-dev' package to 'apt', or take a version that has a wheel."
CONDA_HINT = "Check its spelling and version in 'conda', and the channels in 'conda_channels'."

PACKAGE_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    (
        "apt_package_not_found",
        r"E: Unable to locate package (\S+)",
        "The Debian package '{1}' does not exist in the base image's distribution.",
        APT_HINT,
    ),
    (
        "apt_package_not_found",
        r"E: Couldn't find any package by (?:glob|regex) '([^']+)'",
        "The Debian package '{1}' does not exist in the base image's distribution.",
        APT_HINT,
    ),
    (
        "apt_package_not_found",
        r"E: Package '([^']+)' has no installation candidate",
        "The Debian package '{1}' cannot be installed from the base image's distribution.",
        "Check its spelling in 'apt'; it may have been replaced by another.",
    ),
    (
        "apt_package_not_found",
        r"E: Version '([^']+)' for '([^']+)' was not found",
        "The Debian package '{2}' has no version {1} in the base image's distribution.",
        "Leave the version out of 'apt', or take one that exists.",
    ),
    (
        "apt_failed",
        r"Release file for (\S+) is not valid yet",
        "apt refuses the package lists of {1}, because they are newer than the build node's clock.",
        "Ask the endpoint's administrator to set the build node's clock.",
    ),
    (
        "apt_failed",
        r"Release file for (\S+) is expired",
        "apt refuses the package lists of {1}, because they are too old.",
        "The distribution or its mirror is no longer kept up: take a newer base image.",
    ),
    (
        "apt_failed",
        r"E: The repository '([^']+)' (?:does not have|no longer has) a Release file",
        "The package repository {1} does not exist any more.",
        "The distribution may have ended: take a newer base image.",
    ),
    (
        "apt_failed",
        r"E: The repository '([^']+)' is not signed|(?:NO_PUBKEY|EXPKEYSIG) (\S+)",
        "apt does not trust the package repository {1}{2}: its key is missing or expired.",
        "Take a newer base image, whose keys are up to date.",
    ),
    (
        "apt_failed",
        r"(?i)hash sum mismatch|File has unexpected size",
        "A Debian package or list arrived with other contents than it should have.",
        MIRROR_HINT,
    ),
    (
        "apt_failed",
        r"E: Failed to fetch (\S+)\s+404",
        "A Debian package's file is not on the server any more: {1}.",
        MIRROR_HINT,
    ),
    (
        "apt_failed",
        r"E: Unable to correct problems, you have held broken packages|^The following packages have unmet dependencies",
        "The Debian packages cannot be installed together.",
        "The log says which one lacks what; relax the versions in 'apt', or leave one out.",
    ),
    (
        "apt_failed",
        r"dpkg: error processing (?:package|archive) (\S+)",
        "The Debian package {1} could not be set up in the image.",
        "The lines before it in the log say why; take another base image, or leave the package out.",
    ),
    (
        "conda_failed",
        r"following packages are incompatible|(?:LibMamba)?UnsatisfiableError",
        "The conda packages cannot be installed together.",
        "Relax one of their versions in 'conda'; the log says which ones conflict.",
    ),
    (
        "conda_failed",
        r"CondaHTTPError|UnavailableInvalidChannel|HTTP status .* for url \(\S*repodata",
        "A conda channel cannot be read.",
        "Check the channels in 'conda_channels'; the site may need a mirror.",
    ),
    (
        "conda_package_not_found",
        r"would require\W+__cuda\b|nothing provides __cuda\b",
        "A conda package is for a GPU, and the spec names none.",
        "Set 'machine.gpu', or take a build of the package for processors alone.",
    ),
    (
        "conda_package_not_found",
        r"would require\W+(\S.*?), for which no candidates were found",
        "A conda package needs {1}, which no channel has.",
        CONDA_HINT,
    ),
    (
        "pip_package_not_found",
        r"Because (\S+) was not found in the (?:package registry|provided package locations)",
        "The Python package '{1}' does not exist on the package index.",
        PIP_HINT,
    ),
    (
        "pip_package_not_found",
        r"Could not find a version that satisfies the requirement (.+?) \(from versions: (?!none)",
        "No version of the Python package satisfies '{1}' for the image's Python.",
        RELAX_HINT,
    ),
    (
        "pip_package_not_found",
        r"(?:current|requested) Python version \(([^)]+)\) does not satisfy Python([<>=!~]\S+)(?: and (\S+) depends)?",
        "The Python package {3} needs Python {2}, and the image has {1}.",
        RELAX_HINT,
    ),
    (
        "pip_package_not_found",
        r"Package '?([^' ]+)'? requires a different Python: (\S+) not in '([^']+)'",
        "The Python package {1} needs Python {3}, and the image has {2}.",
        RELAX_HINT,
    ),
    (
        "pip_package_not_found",
        r"Because .*?(\S+) has no wheels with a matching|(\S+\.whl) is not a supported wheel on this platform",
        "The Python package {1}{2} is not made for the image's Python or platform.",
        RELAX_HINT,
    ),
    (
        "pip_package_not_found",
        r"Because (?:there is|there are|only).*?(?:no version|the following versions|available).*?"
        r"(?:of )?([A-Za-z0-9._-]+[=<>!~][^\s,]*)",
        "No version of the Python package satisfies '{1}' for the image's Python.",
        RELAX_HINT,
    ),
    (
        "pip_conflict",
        r"ERROR: Cannot install (.+?) because these package versions have conflicting dependencies",
        "The Python packages {1} cannot be installed together.",
        "Relax one of their versions in 'pip'; the log says which dependencies conflict.",
    ),
    (
        "pip_conflict",
        r"Because (\S+ depends on .+?)(?:,? we can\b.*)?$",
        "The requested Python packages cannot be installed together, because {1}.",
        "Relax one of their versions in 'pip'; the log's last lines say the whole chain.",
    ),
    (
        "pip_failed",
        r"Cannot find command 'git'|Git executable not found",
        "A Python package comes from a git repository, and the image has no git.",
        "Add 'git' to 'apt'.",
    ),
    (
        "pip_failed",
        r"fatal: repository '([^']+)' not found|fatal: could not read Username for '([^']+)'",
        "The git repository of a Python package cannot be read: {1}{2}.",
        "Check its address in 'pip'; it must be readable without a password.",
    ),
    (
        "pip_failed",
        r"THESE PACKAGES DO NOT MATCH THE HASHES|Hash mismatch for `?([^`\s]*)",
        "A Python package does not have the sha256 that it should have.",
        "It was replaced on the index or damaged on the way: start the run again, or make a new lock.",
    ),
    (
        "pip_failed",
        r"error: command '(\S*(?:gcc|g\+\+|cc|c\+\+|gfortran|clang))' failed: No such file|"
        r"No such file or directory: '(\S*(?:gcc|g\+\+|cc|c\+\+|gfortran|clang))'|"
        r"unable to execute '(\S+)': No such file|No (CMAKE_\S+_COMPILER) could be found|"
        r"ERROR: Unknown compiler\(s\): (\[.*\])",
        "A Python package has to be compiled, and the image has no compiler ({1}{2}{3}{4}{5}).",
        COMPILER_HINT,
    ),
    (
        "pip_failed",
        r"can't find Rust compiler|rustc, the rust compiler, is not installed",
        "A Python package has to be compiled, and the image has no Rust compiler.",
        "Add 'rustc' and 'cargo' to 'apt', or take a version of the package that has a wheel.",
    ),
    (
        "pip_failed",
        r"fatal error: Python\.h: No such file",
        "A Python package has to be compiled, and the image has no header files of Python.",
        COMPILER_HINT,
    ),
    (
        "pip_failed",
        r"fatal error: (\S+\.h(?:pp)?): No such file|cannot find -l(\S+?)(?::|$)|No package '([^']+)' found",
        "A Python package has to be compiled, and the image lacks the library of {1}{2}{3}.",
        HEADER_HINT,
    ),
    (
        "pip_failed",
        r"HTTP status (?:client|server) error \(([^)]+)\) for url|HTTP error (4\d\d|5\d\d) while getting|"
        r"could not be queried due to .*\((40\d [^)]+)\)",
        "The package index refused to give out a Python package ({1}{2}{3}).",
        "Check the index in 'pip_extra_index_urls', or ask the endpoint's administrator about the site's.",
    ),
    (
        "conda_package_not_found",
        r"(?:Cannot solve the request because of|nothing provides requested|No candidates were found for) ?:?(.+)",
        "A conda package cannot be had: {1}.",
        CONDA_HINT,
    ),
    (
        "conda_package_not_found",
        r"PackagesNotFoundError",
        "A conda package is not in the given channels.",
        CONDA_HINT,
    ),
    (
        "spack_failed",
        r"^==> Error: (.+?)\.?$",
        "Spack could not install what was asked for: {1}.",
        "Correct 'spack.specs', 'spack.compiler' or 'spack.target'; the log shows what Spack printed.",
    ),
)

# They say that something failed, and come before or after the line that says what.
WEAK_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    (
        "pip_package_not_found",
        r"Ignored the following versions that require a different python version: .*?Requires-Python ([^;]+)",
        "Every version of a Python package is for another Python than the image's: {1}.",
        RELAX_HINT,
    ),
    (
        "pip_package_not_found",
        r"Could not find a version that satisfies the requirement (.+?) \(from versions: none\)",
        "The Python package '{1}' does not exist on the package index.",
        PIP_HINT,
    ),
    (
        "pip_conflict",
        r"No solution found when resolving dependencies",
        "The requested Python packages cannot be installed together.",
        "Relax one of their versions in 'pip'; the log's last lines say which ones conflict.",
    ),
    (
        "pip_failed",
        r"Failed to build (?:installable wheels for|`)?\s*([A-Za-z0-9._-]+)",
        "The Python package '{1}' could not be compiled.",
        "It may need a compiler or libraries: add them to 'apt' (build-essential, python3-dev), or take a "
        "version that has a wheel.",
    ),
    (
        "command_failed",
        r"%post section: exit status 127",
        "A command that the recipe needs does not exist in the base image.",
        "The log's last lines name it; add its package to 'apt'.",
    ),
    (
        "apt_failed",
        r"%post section: exit status 100",
        "apt ended with an error.",
        "The log's last lines are apt's own words; the lines that begin with 'E:' say what is wrong.",
    ),
)
