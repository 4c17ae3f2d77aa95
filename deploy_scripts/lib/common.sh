# shellcheck shell=bash
# What the scripts of this folder share: stages with times and a log, Debian packages, the ordinary
# user that builds and runs images, and a copy of the source tree that this user can read.
# Sourced, never run. Needs bash and GNU coreutils only.

set -euo pipefail
umask 022

CIB_DEPLOY_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
CIB_CHECKOUT="$(dirname "$CIB_DEPLOY_DIR")"
CIB_BUILD_USER="${CIB_BUILD_USER:-cibflows}"
export DEBIAN_FRONTEND=noninteractive

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" -eq 0 ]; }

now_ms() { date +%s%3N; }

seconds_since() { # seconds_since START_MS: prints "12.3"
    local ms=$(($(now_ms) - $1))
    printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

say() { printf '%s\n' "$*"; }

die() { # one sentence for the reader, then stop
    printf 'error: %s\n' "$*" >&2
    exit 1
}

answer_help() { # answer_help ARGS...: the head of the script, for whoever asks for it
    case "${1:-}" in
        -h | --help)
            awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
            exit 0
            ;;
    esac
}

# ---------------------------------------------------------------- stages and the log

# Three variables pass from a script to those it starts: the log, the start of the whole command, and
# the lines of the stages so far. CIB_IN_STAGE says that standard output already goes to the log.
CIB_STARTED_MS="${CIB_STARTED_MS:-$(now_ms)}"
CIB_STAGE_LINES="${CIB_STAGE_LINES:-}"
export CIB_STARTED_MS CIB_STAGE_LINES

open_log() { # open_log NAME: choose the log file of this run; keep the newest twenty
    [ -z "${CIB_LOG_FILE:-}" ] || return 0
    local folder
    if is_root; then folder=/var/log/cib-flows; else folder="$HOME/.cache/cib-flows/logs"; fi
    folder="${CIB_LOG_DIR:-$folder}"
    mkdir -p "$folder"
    find "$folder" -maxdepth 1 -name "$1-*.log" -printf '%T@ %p\n' | sort -rn | tail -n +20 |
        cut -d' ' -f2- | xargs -r -d '\n' rm -f --
    CIB_LOG_FILE="$folder/$1-$(date +%Y%m%d-%H%M%S)-$$.log"
    : >"$CIB_LOG_FILE"
    export CIB_LOG_FILE
    say "log: $CIB_LOG_FILE"
}

share_log() { # root: let the ordinary user's half of the same command go on writing
    if is_root; then chown "$(build_user)" "$CIB_LOG_FILE"; fi
}

in_stage() { [ -n "${CIB_IN_STAGE:-}" ]; }

finish_stage() { # finish_stage STATUS TITLE ELAPSED: prints the line of one stage, or the failure
    local line
    line="$(printf '%-52s %7s s' "$2" "$3")"
    if [ "$1" -ne 0 ]; then
        say "  FAILED: $line"
        if ! in_stage; then
            say "----- last lines of $CIB_LOG_FILE"
            tail -n 20 "$CIB_LOG_FILE"
            say "-----"
        fi
        die "'$2' failed; the lines above say why, and the whole log is $CIB_LOG_FILE."
    fi
    say "  $line"
    CIB_STAGE_LINES+="  $line"$'\n'
}

stage() { # stage TITLE COMMAND ARGS...: run it into the log, print one line with its time
    local title=$1 started status
    shift
    started="$(now_ms)"
    # Not inside `if` or `||`: bash would then ignore `set -e` within the command's own functions.
    set +e
    if in_stage; then
        (set -e; "$@")
    else
        (set -e; export CIB_IN_STAGE=yes; printf '\n===== %s\n' "$title"; "$@") >>"$CIB_LOG_FILE" 2>&1
    fi
    status=$?
    set -e
    finish_stage "$status" "$title" "$(seconds_since "$started")"
}

# ---------------------------------------------------------------- root's work: packages, the user

as_root() { # as_root COMMAND ARGS...: directly, or through a sudo that asks nothing
    if is_root; then
        "$@"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n --preserve-env=DEBIAN_FRONTEND,http_proxy,https_proxy,no_proxy "$@"
    else
        die "this step needs root: run 'sudo bash $0' once, then this command again as yourself."
    fi
}

package_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = "ii " ]
}

apt_install_missing() { # apt_install_missing PACKAGE...: asks apt for nothing that is already there
    local package missing=()
    have dpkg-query || die "$* must be installed by hand: this machine has no Debian packages."
    for package in "$@"; do
        package_installed "$package" || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    # Fresh machines have no package lists, old ones have lists that name vanished files.
    if ! as_root apt-get install -qq -y --no-install-recommends "${missing[@]}"; then
        as_root apt-get update -qq
        as_root apt-get install -qq -y --no-install-recommends "${missing[@]}"
    fi
}

DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

debian_archive() { # prints the URI of the machine's own Debian archive (never its security archive)
    local format="\$(LABEL) \$(REPO_URI)" archive
    archive="$(apt-get indextargets --format "$format" 'Created-By: Packages' 2>/dev/null |
        sed -n 's/^Debian //p' | sed -n 1p)"
    if [ -z "$archive" ]; then # only fetched package lists know the label
        as_root apt-get update -qq >&2
        archive="$(apt-get indextargets --format "$format" 'Created-By: Packages' |
            sed -n 's/^Debian //p' | sed -n 1p)"
    fi
    [ -n "$archive" ] || die "this machine's apt sources name no Debian archive; add one and run again."
    [ -r "$DEBIAN_KEYRING" ] || die "$DEBIAN_KEYRING is missing: install debian-archive-keyring."
    printf '%s' "$archive"
}

# ---------------------------------------------------------------- the ordinary user

build_user() { if is_root; then printf '%s' "$CIB_BUILD_USER"; else id -un; fi; }

build_home() { # the home of the ordinary user, from the user database
    getent passwd "$(build_user)" | cut -d: -f6
}

next_subordinate_range() { # next_subordinate_range FILE: first id after every range in use
    awk -F: 'BEGIN { top = 100000 } $2 + $3 > top { top = $2 + $3 } END { print top }' "$1"
}

ensure_build_user() { # root: make the user and its id ranges; ordinary user: check one's own ranges
    local user file
    user="$(build_user)"
    if ! is_root; then
        for file in /etc/subuid /etc/subgid; do
            grep -q -E "^($user|$(id -u)):" "$file" 2>/dev/null ||
                say "note: $user has no range in $file, so builds fall back to a slower fakeroot."
        done
        return 0
    fi
    if ! getent passwd "$user" >/dev/null; then
        useradd --create-home --shell /bin/bash "$user"
    fi
    touch /etc/subuid /etc/subgid
    if ! grep -q "^$user:" /etc/subuid; then
        file="$(next_subordinate_range /etc/subuid)"
        usermod --add-subuids "$file-$((file + 65535))" "$user"
    fi
    if ! grep -q "^$user:" /etc/subgid; then
        file="$(next_subordinate_range /etc/subgid)"
        usermod --add-subgids "$file-$((file + 65535))" "$user"
    fi
}

# Variables that describe the site (proxies, certificates, mirrors, tool settings) follow the work to
# the ordinary user; those that describe root's own home and tools do not.
CIB_KEPT_VARIABLES='^(https?_proxy|no_proxy|all_proxy|HTTPS?_PROXY|NO_PROXY|ALL_PROXY|SSL_CERT_(FILE|DIR)|NIX_SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|GIT_SSL_CAINFO|NODE_EXTRA_CA_CERTS|PIP_.*|UV_.*|CIB_.*|PYTEST_.*|HYPOTHESIS_.*|LANG|LC_.*|TZ|TERM|COLUMNS|NO_COLOR|FORCE_COLOR|CI|SOURCE_DATE_EPOCH)$'

run_as_user_in() { # run_as_user_in FOLDER COMMAND ARGS...: as the ordinary user, in that folder
    local folder=$1 name user home environment=()
    shift
    if ! is_root; then
        (cd "$folder" && exec env PATH="/usr/bin:/bin:$PATH" "$@")
        return
    fi
    user="$(build_user)"
    home="$(build_home)"
    while IFS= read -r name; do
        if [[ $name =~ $CIB_KEPT_VARIABLES ]]; then environment+=("$name=${!name}"); fi
    done < <(compgen -e)
    # Debian's own programs first: a Python installed under root's home cannot be read by this user.
    # Exported in a subshell, not given to `env`: values must not show as arguments in a process list.
    (
        cd "$folder"
        for name in $(compgen -e); do unset "$name" 2>/dev/null || true; done
        for name in "${environment[@]}"; do export "${name?}"; done
        export HOME="$home" USER="$user" LOGNAME="$user" SHELL=/bin/bash
        export XDG_CACHE_HOME="$home/.cache" XDG_CONFIG_HOME="$home/.config"
        export XDG_DATA_HOME="$home/.local/share"
        export PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin
        exec runuser --preserve-environment -u "$user" -- "$@"
    )
}

run_as_user() { # run_as_user COMMAND ARGS...: as the ordinary user, in that user's home
    run_as_user_in "$(build_home)" "$@"
}

# ---------------------------------------------------------------- the source tree

list_source_files() { # NUL-separated paths under the checkout: tracked, or new and not ignored
    local path
    if [ -e "$CIB_CHECKOUT/.git" ] && have git; then
        # Another user's checkout is "dubious" to git; only its list of names is read here.
        git -c safe.directory='*' -C "$CIB_CHECKOUT" ls-files -coz --exclude-standard
    else
        (cd "$CIB_CHECKOUT" && find . \( -name .git -o -name .venv -o -name __pycache__ \
            -o -name '.*_cache' \) -prune -o \( -type f -o -type l \) -printf '%P\0')
    fi | sort -zu | while IFS= read -r -d '' path; do
        # A file that was deleted but is still tracked is listed too.
        if [ -f "$CIB_CHECKOUT/$path" ] || [ -L "$CIB_CHECKOUT/$path" ]; then
            printf '%s\0' "$path"
        fi
    done
}

source_digest() { # one sha256 over the names, modes, link targets and contents of the source files
    list_source_files | tar -C "$CIB_CHECKOUT" --null --no-recursion -T - --mtime=@0 --owner=0 \
        --group=0 --numeric-owner -cf - | sha256sum | cut -c1-64
}

user_source_tree() { # prints the folder in which the ordinary user finds the source files
    if is_root; then
        printf '%s/src/%s\n' "$(build_home)" "$(printf '%s' "$CIB_CHECKOUT" | sha256sum | cut -c1-12)"
    else
        printf '%s\n' "$CIB_CHECKOUT"
    fi
}

copy_source_tree() { # root: bring the user's copy up to date (mtimes kept, removed files removed)
    is_root || return 0
    local tree digest wanted
    tree="$(user_source_tree)"
    digest="$(source_digest)"
    if [ -d "$tree" ] && [ "$(cat "$tree.digest" 2>/dev/null)" = "$digest" ]; then
        say "source tree $tree is up to date"
        return 0
    fi
    run_as_user mkdir -p "$tree"
    run_as_user rm -f "$tree.digest"
    list_source_files | tar -C "$CIB_CHECKOUT" --null --no-recursion -T - -cf - |
        run_as_user tar -C "$tree" --no-same-owner --no-same-permissions -xf -
    wanted="$(mktemp)"
    list_source_files | tr '\0' '\n' | sort >"$wanted"
    # Generated folders (caches, build output, egg-info) belong to the copy and stay.
    (cd "$tree" && find . \( -name '.*_cache' -o -name __pycache__ -o -name '*.egg-info' \
        -o -name .hypothesis -o -path ./build -o -path ./dist \) -prune -o \
        \( -type f -o -type l \) -printf '%P\n') | sort | comm -23 - "$wanted" |
        (cd "$tree" && xargs -r -d '\n' rm -f --)
    rm -f "$wanted"
    run_as_user find "$tree" -mindepth 1 -type d -empty -delete
    printf '%s\n' "$digest" | run_as_user tee "$tree.digest" >/dev/null
    say "copied the source tree to $tree"
}
