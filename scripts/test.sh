#!/usr/bin/env bash
# Everything that a change must pass: ruff, the import rules, the tests. Arguments go to pytest:
#
#   bash scripts/test.sh
#   bash scripts/test.sh tests/data -k order
#
# Environment: VENV as in scripts/setup.sh; PROCESSES, how many test files run side by side (2); JEPA_DATA, a folder of
# real data sets (tests that need one skip without).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export VENV="${VENV:-$PWD/.venv}"
bash scripts/setup.sh dev,video,agent,interop

# Small models gain little from a second thread, and wait long for it where something else has the core.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/lint-imports" --no-cache
# Whole files in the order of tests/conftest.py. Last, so that the closing line is pytest's own summary.
"$VENV/bin/python" -m pytest -n "${PROCESSES:-2}" --dist loadfile --no-loadscope-reorder "$@"
