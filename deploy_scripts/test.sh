#!/usr/bin/env bash
# Run every check of the project on a fresh Debian 12 machine, or any Linux with Apptainer.
#
#   bash deploy_scripts/test.sh                  # format, lint, types, every tier of tests
#   bash deploy_scripts/test.sh -m "not apptainer" [PYTEST ARGS...]     # one pytest run with these
#
# As root it drops to an ordinary user first, like quickstart.sh. Every check runs, also after another
# one failed; the exit code is 0 only when all passed.

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/prepare.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/prepare.sh"

FAILED_CHECKS=()

check() { # check TITLE COMMAND ARGS...: like a stage, but the next one runs also when this one failed
    local title=$1 started status part verdict
    shift
    started="$(now_ms)"
    part="$(mktemp)"
    set +e
    # shellcheck disable=SC2031  # run_as_user_in sets another PATH, in a subshell of its own
    (cd "$CIB_CHECKOUT" && PATH="$VENV/bin:$PATH" exec "$@") >"$part" 2>&1
    status=$?
    set -e
    { printf '\n===== %s\n' "$title"; cat "$part"; } >>"$CIB_LOG_FILE"
    verdict="$(tail -n 1 "$part")"
    if [ "$status" -ne 0 ]; then
        verdict="FAILED: $verdict"
        FAILED_CHECKS+=("$title")
        say "----- $title"
        tail -n 60 "$part"
        say "-----"
    fi
    rm -f "$part"
    finish_stage 0 "$title" "$(seconds_since "$started")"
    [ -z "$verdict" ] || say "      $verdict"
    CIB_STAGE_LINES+="      $verdict"$'\n'
}

summary() {
    say ""
    say "summary: $(seconds_since "$CIB_STARTED_MS") s in all, log $CIB_LOG_FILE"
    printf '%s' "$CIB_STAGE_LINES"
    if [ "${#FAILED_CHECKS[@]}" -gt 0 ]; then
        say "FAILED: $(printf '%s; ' "${FAILED_CHECKS[@]}" | sed 's/; $//')"
        return 1
    fi
    say "all checks passed"
}

answer_help "$@"
BASE_IMAGES=(--all)
services_for_tests() { # not every machine can have them; the tests that need them then skip, and say why
    bash "$CIB_DEPLOY_DIR/rabbitmq.sh" packages || say "RabbitMQ could not be installed"
    bash "$CIB_DEPLOY_DIR/slurm_node.sh" start || say "no Slurm here"
}
ROOT_EXTRA=(services_for_tests)
prepare_machine test test.sh "$@"

# The Compute SDK knows one port only, and one local Globus at a time can hold it.
QUICKSTART_HOME="${CIB_FLOWS_HOME:-$(state_folder)/local}"

quickstart_program() { # quickstart_program ARGS...: the program of an earlier quickstart of this user
    "$(state_folder)/venv/bin/cib-flows" local "$@" --home "$QUICKSTART_HOME"
}

quickstart_runs() {
    [ -e "$QUICKSTART_HOME/server.json" ] && quickstart_program status >/dev/null 2>&1
}

VENV="$(state_folder)/venv-test"
SITE="$(state_folder)/site-test.json"
mkdir -p "$(state_folder)"

stage "Python environment" python_environment "$VENV" \
    "$CIB_CHECKOUT $(sha256sum "$CIB_CHECKOUT/pyproject.toml" | cut -c1-64)" \
    --editable "${CIB_CHECKOUT}[local,dev]"
stage "base images" base_images
stage "site profile" write_site_profile "$VENV" "$SITE"
# The tests' own local Globus starts from this profile: certificates, mirrors, tools of this machine.
export CIB_TEST_SITE="$SITE"

if quickstart_runs; then
    stage "stop the quickstart's local Globus meanwhile" quickstart_program stop
    trap 'quickstart_program start --site "$(state_folder)/site.json" >>"$CIB_LOG_FILE" 2>&1' EXIT
fi

if [ $# -gt 0 ]; then
    check "pytest $*" pytest -q "$@"
else
    check "ruff format" ruff format --check .
    check "ruff check" ruff check .
    check "mypy" mypy --strict cib_flows # it holds links to functions/ and flows/
    # These hold the one port that the Compute SDK knows, so they are not for two processes at once.
    one_at_a_time=(tests/local tests/clients tests/daemon)
    check "pytest: everything without images" \
        pytest -q -n 2 --dist loadfile "${one_at_a_time[@]/#/--ignore=}" -m "not apptainer and not slurm"
    check "pytest: the local Globus and its clients" \
        pytest -q --durations=20 -m "not apptainer and not slurm" "${one_at_a_time[@]}"
    check "pytest: with real images" \
        pytest -q -n 2 --dist loadfile --durations=20 -m "apptainer and not compute_port"
    check "pytest: functions in real images by the Compute SDK" \
        pytest -q --durations=6 -m "apptainer and compute_port"
    check "pytest: batch jobs of a real Slurm" pytest -q --durations=6 -m slurm
fi
summary
