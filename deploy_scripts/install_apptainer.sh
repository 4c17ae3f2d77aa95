#!/usr/bin/env bash
# Make sure that this machine has a working Apptainer that an ordinary user can build and run with.
#
#   bash deploy_scripts/install_apptainer.sh
#
# Takes, in this order: an apptainer or singularity on PATH that works; the distribution's own
# package (dnf with EPEL, or apt where it has one); Debian unstable's package with private copies of
# the newer libraries it needs, so that no library of the machine is replaced. Running it again is
# free. Needs root (or sudo without a password) only when something is missing.

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
answer_help "$@"

readonly PRIVATE_LIBRARIES=/usr/lib/cib-flows-apptainer
readonly HELPERS=(squashfs-tools squashfuse fuse2fs fakeroot uidmap)

working_engine() { # prints the name of an engine on PATH that answers
    local engine
    for engine in apptainer singularity; do
        if have "$engine" && "$engine" --version >/dev/null 2>&1; then
            printf '%s' "$engine"
            return 0
        fi
    done
    return 1
}

has_apt_candidate() {
    local candidate
    candidate="$(apt-cache policy apptainer 2>/dev/null | sed -n 's/^  Candidate: //p')"
    [ -n "$candidate" ] && [ "$candidate" != "(none)" ]
}

private_apt() { # private_apt FOLDER COMMAND...: an apt that knows Debian unstable and nothing else
    local folder=$1
    shift
    # Run from root's own shell: the folder is root's, and apt checks the archive's signature anyway.
    apt-get -qq -o Dir::Etc::sourcelist="$folder/sid.sources" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache" \
        -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

check_libraries() { # check_libraries ROOT BINARY: every library it asks for is private or the machine's
    local library
    patchelf --print-needed "$2" | while IFS= read -r library; do
        if [ ! -e "$1$PRIVATE_LIBRARIES/$library" ] && ! ldconfig -p | grep -qF "$library "; then
            die "Debian unstable's apptainer now also needs $library; add its package to $0."
        fi
    done
}

install_from_unstable() {
    local work archive package binary loader libraries stage
    apt_install_missing patchelf "${HELPERS[@]}"
    archive="$(debian_archive)"
    work="$(mktemp -d)"
    # shellcheck disable=SC2064  # the folder's name is wanted as it is now
    trap "rm -rf -- '$work'" EXIT
    mkdir -p "$work"/{lists/partial,cache/archives/partial,download,libraries,stage}
    printf 'Types: deb\nURIs: %s\nSuites: sid\nComponents: main\nSigned-By: %s\n' \
        "$archive" "$DEBIAN_KEYRING" >"$work/sid.sources"
    private_apt "$work" update
    (cd "$work/download" && private_apt "$work" download apptainer libc6 libseccomp2 libsqlite3-0)

    stage="$work/stage"
    for package in "$work"/download/lib*.deb; do dpkg -x "$package" "$work/libraries"; done
    dpkg -x "$work"/download/apptainer_*.deb "$stage"
    libraries="$stage$PRIVATE_LIBRARIES"
    mkdir -p "$libraries" "$stage/var/lib/apptainer/mnt/session"
    find "$work/libraries" -name '*.so*' \( -type f -o -type l \) -not -path '*/gconv/*' \
        -not -path '*/audit/*' -not -path '*/lib64/*' -exec cp -a -t "$libraries" {} +
    loader="$(basename "$(find "$libraries" -name 'ld-linux*' | head -n 1)")"
    [ -n "$loader" ] || die "Debian unstable's libc6 holds no program loader where one was expected."

    for binary in "$stage/usr/bin/apptainer" "$(find "$stage/usr/lib" -type f -name starter)"; do
        check_libraries "$stage" "$binary"
        patchelf --set-interpreter "$PRIVATE_LIBRARIES/$loader" "$binary"
        # A forced RPATH, since apptainer runs itself with LD_LIBRARY_PATH set, which beats a RUNPATH.
        patchelf --force-rpath --set-rpath "$PRIVATE_LIBRARIES" "$binary"
    done
    for binary in "$libraries"/libsqlite3.so.* "$libraries"/libseccomp.so.*; do
        [ -L "$binary" ] || patchelf --force-rpath --set-rpath "$PRIVATE_LIBRARIES" "$binary"
    done
    (cd "$stage" && find . -not -type d -printf '/%P\n' | sort >".$PRIVATE_LIBRARIES/installed-files")
    # The libraries first: the program must never stand there without them.
    mkdir -p "$PRIVATE_LIBRARIES"
    cp -a --remove-destination "$libraries/." "$PRIVATE_LIBRARIES/"
    tar -C "$stage" -cf - . | tar -C / --no-overwrite-dir --keep-directory-symlink -xf -
    apptainer --version
}

install_apptainer() {
    if have dnf; then
        as_root dnf install -y -q apptainer ||
            { as_root dnf install -y -q epel-release && as_root dnf install -y -q apptainer; }
    elif ! have apt-get; then
        die "no apptainer on PATH and neither dnf nor apt here: install Apptainer 1.1 or newer by hand."
    elif has_apt_candidate; then
        apt_install_missing apptainer "${HELPERS[@]}"
    elif is_root; then
        install_from_unstable
    else
        # The whole recipe as root; as_root says in one sentence what to run where it may not.
        as_root bash "$0"
    fi
    hash -r
    working_engine >/dev/null || die "Apptainer was installed but 'apptainer --version' does not answer."
}

fuse_usable() { # can someone who is not root open it?
    [ -c /dev/fuse ] && [ -n "$(find /dev/fuse -perm -006)" ]
}

open_fuse() { # without it an ordinary user cannot mount a SIF
    [ -c /dev/fuse ] || as_root modprobe fuse 2>/dev/null || true
    [ -c /dev/fuse ] || as_root mknod -m 666 /dev/fuse c 10 229
    as_root chmod 666 /dev/fuse
}

helpers_present() {
    local program
    for program in mksquashfs newuidmap fakeroot; do have "$program" || return 1; done
}

main() {
    open_log install-apptainer
    working_engine >/dev/null || stage "install Apptainer" install_apptainer
    if have dpkg-query && is_root && ! helpers_present; then
        stage "install Apptainer's helpers" apt_install_missing "${HELPERS[@]}"
    fi
    if ! fuse_usable; then
        if is_root || { have sudo && sudo -n true 2>/dev/null; }; then
            stage "let ordinary users mount images" open_fuse
        else
            say "note: /dev/fuse is closed to you, so images are unpacked before they run; root can 'chmod 666 /dev/fuse'."
        fi
    fi
    say "$("$(working_engine)" --version) is ready"
}

main "$@"
