"""The shell text of recipes: what ``%post`` is made of, and how a user's words get into it."""

from __future__ import annotations

import re
import shlex

PREFIX = "/opt/cib"
EXCHANGE = "/mnt"  # where the build binds what must not stay in the image

PREAMBLE = """\
    set +x -eu
    umask 022
    # {exchange} holds what the build lends: tools, certificates, the payload. Nothing of it stays.
    phase() {{
        echo "==> $1"
        if [ -f {exchange}/lent ]; then echo "$1" > {exchange}/phase; : > "{exchange}/began-$1"; fi
    }}
    # a build that goes on from a kept stage has some phases behind it
    todo() {{ ! grep -qsx "$1" {exchange}/done; }}
    if [ -s {exchange}/done ]; then
        # the stage's own environment is in force here, and its recipe is not this image's history
        PATH=$(echo "$PATH" | sed 's#{prefix}/[a-z]*/bin:##g')
        rm -rf /.singularity.d/Singularity /.singularity.d/bootstrap_history
    fi
    if [ -s {exchange}/locked/preferences ] && [ -d /etc/apt ]; then
        # whatever apt installs from here on has the versions of the lock
        mkdir -p /etc/apt/preferences.d
        cp {exchange}/locked/preferences /etc/apt/preferences.d/99cib-flows
    fi
    record_debs() {{
        # which file each Debian package came from can be known only while apt's lists are here
        ls /var/lib/apt/lists/*_Packages* > /dev/null 2>&1 || return 0
        mkdir -p {prefix}
        dpkg-query -W -f '${{binary:Package}}=${{Version}}\\n' | xargs apt-cache show 2> /dev/null |
            awk '/^Package: /{{p=$2}} /^Version: /{{v=$2}} /^Architecture: /{{a=$2}} /^SHA256: /{{print p,v,a,$2}}' |
            sort -u > {prefix}/debian.lock
    }}
    refuse() {{
        printf 'REFUSED: %s\\n' "$2" >&2
        if [ -f {exchange}/lent ]; then printf '%s\\n%s\\n' "$1" "$2" > {exchange}/refusal; fi
        exit 65
    }}
    apt_install() {{
        command -v apt-get > /dev/null || refuse apt_missing 'The base image has no apt-get, so Debian packages cannot be installed.'
        export DEBIAN_FRONTEND=noninteractive
        if [ ! -f /etc/apt/apt.conf.d/99cib-flows ]; then
            # apt cannot change to its own user in a namespace that maps only one
            echo 'APT::Sandbox::User "root";' > /etc/apt/apt.conf.d/99cib-flows
            apt-get -q update
        fi
        for item; do
            name=${{item%%[:=]*}}
            # what apt does not know by such a name, it would read as a pattern, and install all that fits
            case $name in *[+.]*)
                apt-cache -o APT::Cache::AllNames=true pkgnames "$name" | grep -qxF -e "$name" ||
                    refuse apt_package_not_found "The Debian package '$name' does not exist in the base image's distribution." ;;
            esac
        done
        apt-get -q install -y --no-install-recommends -- "$@"
    }}
"""

FIND_PYTHON = """\
    phase python
    python=$(command -v python3 || true)
    if [ -z "$python" ]; then
        command -v apt-get > /dev/null || refuse python_missing 'The base image has no python3 and no apt-get to install one.'
        echo 'APT::Sandbox::User "root";' > /etc/apt/apt.conf.d/99cib-flows
        apt-get -q update
{candidate}        apt_install python3 python3-venv
        python=$(command -v python3)
    fi
"""

CHECK_CANDIDATE = """\
        candidate=$(apt-cache policy python3 | sed -n 's/^ *Candidate: *//p')
        dpkg --compare-versions "$candidate" ge 3.10 ||
            refuse python_too_old "The base image has no Python, and apt offers only $candidate; Globus Compute needs 3.10 or newer."
"""

CHECK_PYTHON = """\
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||{unless}
        refuse python_too_old "The base image's $("$python" --version 2>&1) is too old: Globus Compute needs 3.10 or newer."
"""

PYTHON_HELPERS = """\
    can_use_uv() {{ [ -x {exchange}/tools/uv ] && {exchange}/tools/uv --version > /dev/null 2>&1; }}
    choose_python() {{
        env_python={prefix}/venv/bin/python
        if [ -x {prefix}/conda/bin/python ]; then env_python={prefix}/conda/bin/python; fi
    }}
"""

# pip looks for the best version in all indexes alike, and uv must not answer differently from pip.
ADD_INDEX = """\
    add_index() {{
        export PIP_EXTRA_INDEX_URL="${{PIP_EXTRA_INDEX_URL:+$PIP_EXTRA_INDEX_URL }}$1"
        export UV_INDEX="${{UV_INDEX:+$UV_INDEX }}$1" UV_INDEX_STRATEGY=unsafe-best-match
    }}
"""

# One environment for everything: conda's own Python where conda brought one, else a virtual environment that
# sees what the base image has. uv does not count what the base has when it resolves, so pip does the work there.
MAKE_ENVIRONMENT = """\
    choose_python
    if [ ! -x "$env_python" ] && can_use_uv; then
        {exchange}/tools/uv venv -q --seed --system-site-packages --python "$python" {prefix}/venv
        # sync would take away what wheel needs, and leave wheel
        {exchange}/tools/uv pip uninstall -q --python "$env_python" wheel packaging 2> /dev/null || true
    elif [ ! -x "$env_python" ]; then
        "$python" -c 'import venv, ensurepip' 2> /dev/null || apt_install python3-venv
        "$python" -m venv --system-site-packages {prefix}/venv
    fi
"""

PIP_INSTALL = """\
    base_is_bare() {{
        "$python" -c 'import importlib.metadata as m, sys; sys.exit(any(d.name.lower() not in ("pip", "setuptools", "wheel") for d in m.distributions()))'
    }}
    generate_hashes=--generate-hashes require_hashes=--require-hashes
    # a git reference has no hash that could be required
    if grep -q 'git+https://' {prefix}/requirements.txt; then generate_hashes='' require_hashes=''; fi
    if [ -d {exchange}/locked ]; then
        # exactly the files of an earlier build
        for kind in plain hashed; do
            [ -s {exchange}/locked/$kind ] || continue
            if [ $kind = hashed ]; then require_hashes=--require-hashes; else require_hashes=''; fi
            if can_use_uv; then
                {exchange}/tools/uv pip install --python "$env_python" --break-system-packages --no-deps $require_hashes --compile-bytecode --link-mode copy -r {exchange}/locked/$kind
            else
                "$env_python" -m pip install --no-cache-dir --disable-pip-version-check --no-input --no-deps $require_hashes -r {exchange}/locked/$kind
            fi
        done
        cp {exchange}/locked/hashed {prefix}/requirements.lock
    elif can_use_uv && [ "$env_python" = {prefix}/venv/bin/python ] && base_is_bare; then
        # first which versions, then exactly those, whatever a kept stage had
        {exchange}/tools/uv pip compile -q --python "$env_python" $generate_hashes --no-annotate --no-header {prefix}/requirements.txt -o {prefix}/requirements.lock
        {exchange}/tools/uv pip sync --python "$env_python" $require_hashes --compile-bytecode --link-mode copy {prefix}/requirements.lock
    elif can_use_uv && [ "$env_python" = {prefix}/conda/bin/python ]; then
        {exchange}/tools/uv pip install --python "$env_python" --break-system-packages --compile-bytecode --link-mode copy -r {prefix}/requirements.txt
    else
        "$env_python" -m pip --version > /dev/null || "$env_python" -m ensurepip
        "$env_python" -m pip install --no-cache-dir --disable-pip-version-check --no-input -r {prefix}/requirements.txt
    fi
"""

CONDA_INSTALL = """\
    if [ -s {exchange}/locked/conda ]; then
        set --
        while IFS= read -r item; do set -- "$@" "$item"; done < {exchange}/locked/conda
    fi
    if [ -d {exchange}/tools/rattler ] && command -v python3 > /dev/null; then
        python3 {exchange}/conda_install.py --prefix {prefix}/conda "$@"
        # what it unpacks is readable by its owner alone
        chmod -R go+rX {prefix}/conda
    else
        conda=$(command -v micromamba || command -v mamba || command -v conda || true)
        [ -n "$conda" ] || refuse conda_missing 'The base image has no conda, and the build endpoint lends none.'
        "$conda" create -y -q -p {prefix}/conda --override-channels "$@"
        "$conda" clean -y -q --all
    fi
"""

PAYLOAD = """\
    phase payload
    mkdir -p {destination}
    if [ -e {exchange}/payload ]; then cp -a {exchange}/payload/. {destination}/; fi
    # whoever runs the image is not the one who built it
    chmod -R go+rX {destination}
"""

COMMANDS = """\
    phase commands
    run() {{
        printf '+ %s\\n' "$1"
        /bin/sh -e -c "$1" < /dev/null || refuse command_failed "The command exited with status $?: $1"
    }}
"""

# What a payload asks for was read and checked before the build, and is lent to it line by line.
ASKED_APT = """\
    if [ -s {exchange}/asked/apt ]; then
        # no name has a character that the shell would read
        apt_install $(cat {exchange}/asked/apt)
    fi
"""

ASKED_CHANNELS = """\
    if [ -s {exchange}/asked/channels ]; then
        while IFS= read -r item; do set -- "$@" -c "$item"; done < {exchange}/asked/channels
    fi
"""

ASKED_CONDA = """\
    if [ -s {exchange}/asked/conda ]; then
        while IFS= read -r item; do set -- "$@" "$item"; done < {exchange}/asked/conda
    fi
"""

ASKED_PIP = """\
    if [ -s {exchange}/asked/pip ]; then cat {exchange}/asked/pip >> {prefix}/requirements.txt; fi
"""

ASKED_INDEXES = """\
    if [ -s {exchange}/asked/indexes ]; then
        while IFS= read -r item; do add_index "$item"; done < {exchange}/asked/indexes
    fi
"""

INSTALL_PAYLOAD = """\
    phase install
    choose_python
    if [ -e {exchange}/asked/project ]; then
        if can_use_uv; then
            {exchange}/tools/uv pip install --python "$env_python" --break-system-packages --compile-bytecode --link-mode copy {destination}
        else
            "$env_python" -m pip install --no-cache-dir --disable-pip-version-check --no-input {destination}
        fi
    fi
    if [ -s {exchange}/asked/post-build ]; then
        post_build=./$(cat {exchange}/asked/post-build)
        (cd {destination} && chmod +x "$post_build" && "$post_build" < /dev/null) ||
            refuse post_build_failed "The payload's postBuild ended with status $?."
    fi
    if [ -s {exchange}/asked/start ]; then
        ln -sf {destination}/"$(cat {exchange}/asked/start)" {prefix}/start
        chmod +x {prefix}/start
    fi
    chmod -R go+rX {destination}
"""


def quote(text: str) -> str:
    """One shell word for any one-line text, in which no build argument stands and which opens no section."""
    quoted = shlex.quote(text)
    if quoted.startswith("%"):
        # a word may stand first on its line, and there a percent sign would open a section
        quoted = f"'{quoted}'"
    return re.sub(r"\{(?=\{)", "{''", quoted)


def words(items: list[str]) -> str:
    """Shell words on lines of their own; one empty word when there are none."""
    return " \\\n        ".join(quote(item) for item in items) if items else "''"
