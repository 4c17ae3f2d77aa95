#!/usr/bin/env bash
# Install RabbitMQ from Debian, for the tests of the endpoint daemon (pytest -m daemon).
#
#   bash deploy_scripts/rabbitmq.sh packages     # as root; nothing to do when it is there
#
# Only the package: no broker is started. The tests start one of their own, as the ordinary user, in
# a network namespace. Without the package those tests are skipped, and say so.

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
answer_help "$@"

readonly POLICY=/usr/sbin/policy-rc.d

[ "${1:-}" = packages ] || die "usage: bash deploy_scripts/rabbitmq.sh packages"
if package_installed rabbitmq-server; then exit 0; fi
is_root || die "RabbitMQ is installed by root: sudo bash deploy_scripts/rabbitmq.sh packages"
# Debian would start a broker at once, open to the network; this is how it is told not to.
if [ ! -e "$POLICY" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
    trap 'rm -f "$POLICY"' EXIT
fi
apt_install_missing rabbitmq-server
if have systemctl; then systemctl disable rabbitmq-server >/dev/null 2>&1 || true; fi
