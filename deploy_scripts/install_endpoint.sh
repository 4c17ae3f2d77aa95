#!/usr/bin/env bash
# Install the files of a Globus Compute endpoint that builds and runs images at one site.
#
#   bash deploy_scripts/install_endpoint.sh SITE --set image-root=/shared/containers [--set …] [--dry-run]
#   bash deploy_scripts/install_endpoint.sh --help
#
# SITE is a folder of deploy_scripts/endpoints with a settings.json, which lists what can be set. Doing it
# again changes nothing, and leaves alone what was edited since.

set -euo pipefail
python="$(command -v python3)" || { echo "error: python3 is not on PATH." >&2; exit 1; }
exec "$python" "$(dirname "${BASH_SOURCE[0]}")/lib/install_endpoint.py" "$@"
