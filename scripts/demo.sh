#!/usr/bin/env bash
# The main job on an embedded data set, from a fresh clone: environment, then gmabs demo. Needs no GPU.
# Under a quarter of an hour on two cores after installation.
#
#   ./scripts/demo.sh
#   ./scripts/demo.sh --iterations 1000    arguments go to gmabs demo
#   PYTHON=python3.12 ./scripts/demo.sh
set -euo pipefail
source "$(dirname "$0")/environment.sh"
gmabs demo "$@"
