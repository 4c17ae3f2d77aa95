#!/usr/bin/env bash
# Serve base images on this machine where Docker Hub cannot be reached.
#
#   bash deploy_scripts/base_registry.sh start [--all] | packages | stop | status | url
#
# start     where Docker Hub answers: nothing to do. Else: make a base image from Debian packages (once)
#           and serve it as library/python:3.11-slim on the loopback; --all also makes
#           library/debian:12-slim, which holds no Python and which the tests need.
# packages  only the part of it that needs root.
# url       prints HOST:PORT while the local registry runs, else nothing.
#
# Everything is made and run by the ordinary user and kept in ~/.cache/cib-flows; root only installs
# Debian packages. Environment: CIB_REGISTRY_PORT (5055), CIB_DOCKER_HUB (yes | no: do not ask).

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
answer_help "$@"

readonly PORT="${CIB_REGISTRY_PORT:-5055}"
readonly ADDRESS="127.0.0.1:$PORT"
readonly PYTHON_PACKAGES=ca-certificates,python3,python3-venv,python3-pip
readonly PYTHON_IMAGES=(python:3.11-slim)
readonly PLAIN_IMAGES=(debian:12-slim debian:nopython-slim) # two names for one image

# ---------------------------------------------------------------- asking registries

docker_hub_answers() { # any HTTP answer will do: unauthenticated requests get 401
    case "${CIB_DOCKER_HUB:-ask}" in
        yes) return 0 ;;
        no) return 1 ;;
        ask) ;;
        *) die "CIB_DOCKER_HUB is '$CIB_DOCKER_HUB', it must be 'yes' or 'no' (or unset: ask)." ;;
    esac
    timeout 4 python3 - <<'PYTHON'
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen("https://registry-1.docker.io/v2/", timeout=3)
except urllib.error.HTTPError as answer:
    sys.exit(0 if answer.headers.get("Docker-Distribution-Api-Version") else 1)
except OSError:
    sys.exit(1)
PYTHON
}

local_answer() { # local_answer PATH: the head of the loopback registry's answer, nothing when it is down
    local line
    (
        exec 3<>"/dev/tcp/127.0.0.1/$PORT" || exit 0
        printf 'HEAD %s HTTP/1.0\r\nAccept: */*\r\n\r\n' "$1" >&3
        while IFS=$'\r' read -r -t 5 line <&3 && [ -n "${line%$'\r'}" ]; do printf '%s\n' "$line"; done
    ) 2>/dev/null
}

registry_runs() { # also stops the command when the port belongs to something else
    local answer
    answer="$(local_answer /v2/)"
    [ -n "$answer" ] || return 1
    [[ ${answer,,} == *docker-distribution-api-version* ]] ||
        die "port $PORT is taken by another program; choose a free one with CIB_REGISTRY_PORT=NUMBER."
}

has_image() { # has_image NAME:TAG
    [[ "$(local_answer "/v2/library/${1%:*}/manifests/${1#*:}" | head -n 1)" == *" 200"* ]]
}

all_present() { # all_present NAME:TAG...: the registry runs and holds them
    local image
    registry_runs || return 1
    for image in "$@"; do has_image "$image" || return 1; done
}

# ---------------------------------------------------------------- the registry (ordinary user)

registry_folder() { printf '%s/.cache/cib-flows/registry' "$(build_home)"; }

registry_process() { # prints the process id when it is alive and really is a registry
    local pid
    pid="$(cat "$(registry_folder)/pid" 2>/dev/null)" || return 1
    [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q docker-registry || return 1
    printf '%s' "$pid"
}

unpack_registry() { # the program alone: the installed package would start a service on port 5000
    local folder
    folder="$(registry_folder)"
    [ ! -x "$folder/program/usr/bin/docker-registry" ] || return 0
    rm -rf "$folder/download"
    mkdir -p "$folder/download"
    (cd "$folder/download" && apt-get download -qq docker-registry)
    dpkg -x "$folder"/download/docker-registry_*.deb "$folder/program"
    rm -rf "$folder/download"
}

start_registry() {
    local folder attempt
    ! registry_runs || return 0
    folder="$(registry_folder)"
    unpack_registry
    mkdir -p "$folder/data"
    cat >"$folder/config.yml" <<YAML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: "$folder/data"}, delete: {enabled: true}}
http: {addr: "$ADDRESS"}
YAML
    setsid "$folder/program/usr/bin/docker-registry" serve "$folder/config.yml" \
        >"$folder/log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$folder/pid"
    for ((attempt = 0; attempt < 100; attempt++)); do
        if registry_runs; then return 0; fi
        # not registry_process: a moment ago it was still this shell, by name
        kill -0 "$(<"$folder/pid")" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 5 "$folder/log"
    die "the registry did not start on $ADDRESS; its log is $folder/log."
}

stop_registry() {
    local pid
    if pid="$(registry_process)"; then kill "$pid"; fi
    rm -f "$(registry_folder)/pid"
}

# ---------------------------------------------------------------- the images (ordinary user)

debian_sources() { # the machine's own archive, so that a mirror or a proxy cache is used here too
    local archive suite
    archive="$(debian_archive)"
    archive="${archive%/}"
    for suite in bookworm bookworm-updates; do
        printf 'deb [signed-by=%s] %s %s main\n' "$DEBIAN_KEYRING" "$archive" "$suite"
    done
    printf 'deb [signed-by=%s] %s-security bookworm-security main\n' "$DEBIAN_KEYRING" "$archive"
}

bootstrap_rootfs() { # bootstrap_rootfs OUTPUT PACKAGES ("" for none): as small as Debian's slim images
    local output=$1 packages=$2 tree
    # mmdebstrap keeps the sources it was given; inside the image the keyring has its usual place.
    debian_sources | mmdebstrap --quiet --variant=minbase --mode=unshare --format=tar \
        ${packages:+--include="$packages"} \
        --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt=force-unsafe-io --skip=output/dev \
        bookworm "$output" -
}

make_image() { # make_image PACKAGES COMMAND NAME:TAG...: bootstrap, wrap, push under every name
    local packages=$1 command=$2 work image
    shift 2
    work="$(mktemp -d "$(registry_folder)/making.XXXXXX")"
    # mmdebstrap's own folder must be reachable by the user's subordinate ids: the home may be closed.
    bootstrap_rootfs "$work/rootfs.tar" "$packages"
    python3 "$CIB_DEPLOY_DIR/lib/docker_archive.py" \
        "$work/rootfs.tar" "$work/image.tar" "$1" "$command"
    for image in "$@"; do
        skopeo --insecure-policy copy --quiet --dest-tls-verify=false \
            "docker-archive:$work/image.tar" "docker://$ADDRESS/library/$image"
    done
    rm -rf -- "$work"
}

make_missing_images() { # make_missing_images [--all]
    if ! all_present "${PYTHON_IMAGES[@]}"; then
        stage "make the base image with Python" make_image "$PYTHON_PACKAGES" python3 "${PYTHON_IMAGES[@]}"
    fi
    if [ "${1:-}" = --all ] && ! all_present "${PLAIN_IMAGES[@]}"; then
        stage "make the base image without Python" make_image "" bash "${PLAIN_IMAGES[@]}"
    fi
}

# ---------------------------------------------------------------- commands

local_registry_needed() { # a registry that runs already holds images in use: go on with it
    ! registry_runs || return 0
    ! docker_hub_answers
}

install_packages() {
    have apt-get || die "Docker Hub is out of reach, and without apt no base image can be made here."
    apt_install_missing python3 mmdebstrap skopeo uidmap
}

start() { # start [--all]
    local wanted=("${PYTHON_IMAGES[@]}")
    if [ "${1:-}" = --all ]; then wanted+=("${PLAIN_IMAGES[@]}"); fi
    if all_present "${wanted[@]}"; then
        say "base images are served at $ADDRESS"
        return 0
    fi
    if ! local_registry_needed; then
        say "Docker Hub answers: no local registry is needed"
        return 0
    fi
    open_log base-registry
    stage "packages that make a base image" install_packages
    if is_root; then
        stage "the ordinary user" ensure_build_user
        stage "source tree for the ordinary user" copy_source_tree
        share_log
        run_as_user bash "$(user_source_tree)/deploy_scripts/base_registry.sh" start "$@"
        return
    fi
    mkdir -p "$(registry_folder)"
    # Two scripts that start at once take turns.
    exec 9>"$(registry_folder)/lock"
    flock 9
    stage "registry on $ADDRESS" start_registry 9>&-
    make_missing_images "$@" 9>&-
    say "base images are served at $ADDRESS"
}

status() {
    if registry_runs; then
        say "running at $ADDRESS, process $(registry_process || printf 'of someone else')"
    else
        say "not running"
        return 1
    fi
}

case "${1:-}" in
    start) start "${@:2}" ;;
    packages) if local_registry_needed; then install_packages; else say "not needed"; fi ;;
    stop) stop_registry ;;
    status) status ;;
    url) if registry_runs; then say "$ADDRESS"; fi ;;
    *)
        printf 'usage: base_registry.sh start [--all] | packages | stop | status | url\n' >&2
        exit 2
        ;;
esac
