#!/usr/bin/env bash
# From nothing to a function that runs in a registered image, on a fresh Debian 12 machine or any
# Linux with Apptainer and Python 3.10 or newer.
#
#   bash deploy_scripts/quickstart.sh
#
# As root it makes the user `cibflows` (CIB_BUILD_USER names another) and drops to it for everything that
# builds or runs images. Running it again is safe, and takes seconds. What it leaves: ~/.cib-flows
# (program, local Globus, images), ~/.cache/cib-flows (base images, where Docker Hub is out of reach).

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/prepare.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/prepare.sh"

readonly EXPECTED_ANSWER="Successfully created df"

start_local_globus() { # start_local_globus VENV HOME SITE
    local venv=$1 home=$2 site=$3
    # A server that was started before the program's files changed must not go on with half of each.
    if [ -e "$home/server.json" ] && [ "$venv/installed" -nt "$home/server.json" ]; then
        "$venv/bin/cib-flows" local stop --home "$home"
    fi
    "$venv/bin/cib-flows" local start --home "$home" --site "$site"
    # The variables of this service, for whoever goes on by hand.
    cat >"$(state_folder)/activate" <<ACTIVATE
# Source this file: cib-flows on PATH, and the local Globus as the Globus of this shell.
. '$venv/bin/activate'
export CIB_FLOWS_HOME='$home'
eval "\$(cib-flows local env --home '$home')"
ACTIVATE
}

with_local_globus() { # with_local_globus COMMAND ARGS...: in the source tree, against the local Globus
    local exports
    exports="$("$VENV/bin/cib-flows" local env --home "$GLOBUS_HOME")" || return 1
    (
        cd "$CIB_CHECKOUT" || exit 1
        eval "$exports"
        # shellcheck disable=SC2031  # run_as_user_in sets another PATH, in a subshell of its own
        PATH="$VENV/bin:$PATH" exec "$@"
    )
}

build_example() { # build_example RESULT_FILE
    with_local_globus cib-flows build examples/pandas.yaml --json >"$1"
    cat "$1"
}

run_example() { # run_example ANSWER_FILE: the program of the prior system's README
    with_local_globus python examples/prior_system_readme.py >"$1" || { cat "$1"; return 1; }
    cat "$1"
    grep -qF "$EXPECTED_ANSWER" "$1" || die "the program did not answer '$EXPECTED_ANSWER'."
}

field() { # field FILE NAME: what the build said about its container
    "$VENV/bin/python" -c 'import json, sys
print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$@"
}

summary() { # summary RESULT_FILE ANSWER_FILE
    local how="" container_id
    container_id="$(field "$1" container_id)"
    if [ "$(id -un)" = "$CIB_BUILD_USER" ]; then how="su - $CIB_BUILD_USER     # everything belongs to this user"; fi
    say ""
    say "cib-flows works on this machine."
    say "  container  $container_id"
    say "  image      $(field "$1" path) ($(($(field "$1" bytes) / 1000000)) MB)"
    say "  answer     $(grep -F "$EXPECTED_ANSWER" "$2" | tail -n 1)"
    say "  log        $CIB_LOG_FILE"
    say "  time       $(seconds_since "$CIB_STARTED_MS") s, of which"
    printf '%s' "$CIB_STAGE_LINES" | sed 's/^/           /'
    say "go on with:"
    [ -z "$how" ] || say "  $how"
    say "  . ~/.cib-flows/activate"
    say "  cib-flows containers list"
    say "  cib-flows containers exec $container_id -- python -c 'import pandas; print(pandas.__version__)'"
    say "  cib-flows build YOUR_SPEC.yaml"
    say "  cib-flows local stop"
}

answer_help "$@"
[ $# -eq 0 ] || die "quickstart.sh takes no arguments, but --help."
prepare_machine quickstart quickstart.sh

VENV="$(state_folder)/venv"
GLOBUS_HOME="${CIB_FLOWS_HOME:-$(state_folder)/local}"
export CIB_FLOWS_HOME="$GLOBUS_HOME"
SITE="$(state_folder)/site.json"
RESULTS="$(state_folder)/quickstart"
mkdir -p "$RESULTS"

stage "Python environment" python_environment "$VENV" "$(source_digest)" \
    "cib-flows[local] @ file://$CIB_CHECKOUT"
stage "base images" base_images
stage "site profile" write_site_profile "$VENV" "$SITE"
stage "local Globus" start_local_globus "$VENV" "$GLOBUS_HOME" "$SITE"
stage "build, verify, register examples/pandas.yaml" build_example "$RESULTS/build.json"
stage "run a function in the image" run_example "$RESULTS/answer.txt"
summary "$RESULTS/build.json" "$RESULTS/answer.txt"
