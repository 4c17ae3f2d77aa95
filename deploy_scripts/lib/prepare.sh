# shellcheck shell=bash
# What quickstart.sh and test.sh have in common: root's half (packages, Apptainer, the ordinary user and
# its source tree) and the ordinary user's half (base images, a Python environment, the site profile).
# Sourced after common.sh, never run.

# The state folder of the ordinary user; everything that these scripts make for it stands below.
state_folder() { printf '%s/.cib-flows' "$HOME"; }

# ---------------------------------------------------------------- root's half

# Which base images the script needs beside the one with Python: empty, or --all.
BASE_IMAGES=()

# A command of the script's own that root runs before it drops to the ordinary user.
ROOT_EXTRA=()

install_packages() {
    if have apt-get; then
        apt_install_missing ca-certificates git python3 python3-venv
    else
        have python3 || die "python3 (3.10 or newer) is not on PATH; install it and run again."
    fi
    bash "$CIB_DEPLOY_DIR/base_registry.sh" packages
}

begin_base_images() { # the longest part of the preparation, so it runs beside the rest of it
    local log="${CIB_LOG_FILE%.log}-base-images.log"
    # What goes wrong here is tried again, and reported, by the stage that needs the images.
    CIB_IN_STAGE=yes run_as_user bash "$(user_source_tree)/deploy_scripts/base_registry.sh" \
        start "${BASE_IMAGES[@]}" >"$log" 2>&1 </dev/null &
}

prepare_machine() { # prepare_machine NAME SCRIPT ARGS...: returns as the ordinary user, or not at all
    local name=$1 script=$2
    shift 2
    open_log "$name"
    case "${CIB_HALF:-}" in
        ordinary-user) CIB_HALF=locked take_turn "$@" ;;
        locked) return 0 ;;
    esac
    stage "Debian packages" install_packages
    stage "ordinary user $(build_user)" ensure_build_user
    if is_root; then stage "source tree that this user can read" copy_source_tree; fi
    begin_base_images
    stage "Apptainer" bash "$CIB_DEPLOY_DIR/install_apptainer.sh"
    if is_root && [ "${#ROOT_EXTRA[@]}" -gt 0 ]; then
        stage "what only root can start for the tests" "${ROOT_EXTRA[@]}"
    fi
    if is_root; then
        share_log
        # Everything that builds or runs an image happens as the ordinary user from here on.
        CIB_HALF=ordinary-user run_as_user bash "$(user_source_tree)/deploy_scripts/$script" "$@"
        exit
    fi
    CIB_HALF=locked take_turn "$@"
}

take_turn() { # take_turn ARGS...: one run per user; starts this script again under a lock
    local lock
    mkdir -p "$(state_folder)"
    lock="$(state_folder)/lock"
    flock --nonblock "$lock" true || say "another run of this user is under way: waiting for its end"
    # --close: a server that outlives the script must not go on holding the lock.
    exec flock --close "$lock" bash "$0" "$@"
}

# ---------------------------------------------------------------- the Python environment

system_python() { # prints the first Python that is new enough, the distribution's own before others
    local candidate
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.10; do
        if have "$candidate" && "$candidate" -c \
            'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    die "no Python 3.10 or newer with venv was found; install python3 and python3-venv."
}


install_into() { # install_into VENV PIP_ARGUMENTS...: with uv, which is faster; with pip where uv fails
    local venv=$1
    shift
    if [ -x "$venv/bin/uv" ] &&
        SSL_CERT_FILE="${SSL_CERT_FILE:-${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}}" \
            UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-}}" \
            "$venv/bin/uv" pip install --python "$venv/bin/python" "$@"; then
        return 0
    fi
    say "uv could not do it, so pip does"
    "$venv/bin/python" -m pip install "$@"
}

python_environment() { # python_environment VENV DIGEST PIP_ARGUMENTS...: current, or made so
    local venv=$1 digest=$2 python
    shift 2
    python="$(system_python)"
    digest="$digest $("$python" --version) $*"
    if [ "$(cat "$venv/installed" 2>/dev/null)" = "$digest" ]; then
        say "$venv is up to date"
        return 0
    fi
    rm -f "$venv/installed"
    # The version number stays while the files change, so an installed copy would be taken for current.
    "$venv/bin/python" -m pip uninstall --quiet --yes cib-flows 2>/dev/null || true
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        mkdir -p "$(dirname "$venv")"
        "$python" -m venv --clear "$venv"
    fi
    [ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet uv ||
        say "uv is not to be had here"
    install_into "$venv" "$@"
    printf '%s\n' "$digest" >"$venv/installed"
}

# ---------------------------------------------------------------- base images, the site profile

base_images() { # waits for those under way, makes what is missing
    bash "$CIB_DEPLOY_DIR/base_registry.sh" start "${BASE_IMAGES[@]}"
}

lend_tools() { # lend_tools VENV FOLDER: what builds use from outside the image: uv, and rattler for conda
    local site_packages rattler version
    mkdir -p "$2"
    if [ -x "$1/bin/uv" ] && ! cmp -s "$1/bin/uv" "$2/uv"; then
        cp "$1/bin/uv" "$2/.uv"
        mv "$2/.uv" "$2/uv" # in one step: a build may be running the old one
    fi
    site_packages="$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
    rattler="$(find "$site_packages" -maxdepth 1 -name 'py_rattler-*.dist-info' -print -quit)"
    version="$(basename "$rattler" .dist-info)"
    if [ -n "$rattler" ] && [ "$(cat "$2/rattler.version" 2>/dev/null)" != "$version" ]; then
        rm -rf "$2/rattler" "$2/.rattler"
        mkdir "$2/.rattler"
        cp -a "$site_packages/rattler" "$2/.rattler/"
        mv "$2/.rattler" "$2/rattler"
        printf '%s\n' "$version" >"$2/rattler.version"
    fi
}

write_site_profile() { # write_site_profile VENV FILE: what an administrator would say about this machine
    local venv=$1 file=$2 tools mirror
    tools="$(state_folder)/tools"
    lend_tools "$venv" "$tools"
    mirror="$(bash "$CIB_DEPLOY_DIR/base_registry.sh" url)"
    "$venv/bin/python" "$CIB_DEPLOY_DIR/lib/site_profile.py" "$file" --tools "$tools" \
        ${mirror:+--docker-mirror "$mirror"}
}
