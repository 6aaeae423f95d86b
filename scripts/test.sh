#!/usr/bin/env bash
# Everything that must hold, from a fresh clone: environment, ruff, mypy, all tests. About 25 minutes on two cores.
#
#   ./scripts/test.sh                   all of it
#   ./scripts/test.sh -m "not slow"     arguments go to pytest
#   PYTHON=python3.12 ./scripts/test.sh
set -euo pipefail
source "$(dirname "$0")/environment.sh" test

echo "== ruff"
ruff check --quiet --output-format concise .
ruff format --quiet --check --output-format concise . || { echo "cure: ruff format ."; exit 1; }

echo "== mypy"
mypy --no-error-summary

echo "== pytest"
python -m pytest -q --durations=15 -n 2 --dist loadgroup --no-loadscope-reorder "$@"
