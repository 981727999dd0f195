#!/usr/bin/env bash
# Make the virtual environment and install the package into it. Needs bash, git and Python 3.11 or newer.
#
#   bash scripts/setup.sh              the package alone
#   bash scripts/setup.sh dev,video    with these extras (pyproject.toml, [project.optional-dependencies])
#
# Environment: VENV, where the environment goes (default: .venv in the checkout); PYTHON, which interpreter to use.
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) count as usual. Run again, it does nothing until
# pyproject.toml changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras="${1:-}"
VENV="${VENV:-$PWD/.venv}"
STAMPS="$VENV/.jepa-setup"

say() { printf '%s\n' "setup: $*"; }
die() {
  printf '%s\n' "setup: $*" >&2
  exit 1
}

# A name on PATH proves nothing: version managers leave launchers for interpreters that are not there. So run it.
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    recent "$PYTHON" || die "PYTHON=$PYTHON does not run or is older than Python 3.11; unset it or point it at a newer one."
    printf '%s\n' "$PYTHON"
    return
  fi
  local name
  for name in python3 python3.13 python3.12 python3.11 python; do
    if recent "$name"; then
      printf '%s\n' "$name"
      return
    fi
  done
  die "no Python 3.11 or newer on PATH (python3 is $(python3 --version 2>&1 | head -n 1 || true));" \
    "install one, or set PYTHON to its path."
}

make_venv() {
  local python
  python="$(find_python)"
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    die "$python has no venv module; install it (on Debian and Ubuntu: the package python3-venv) and run this again."
  # --clear deletes: only ever what is an environment already.
  if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV")" ]; then
    die "$VENV is neither empty nor a virtual environment; set VENV to another folder."
  fi
  say "making $VENV with $("$python" --version)"
  "$python" -m venv --clear "$VENV"
}

install_package() {
  local quiet=--quiet
  [ -t 1 ] && quiet=--progress-bar=on # minutes without a word look like a hang to someone who watches
  say "installing torch, torchvision and jepa-pretrain${extras:+[$extras]} (a few minutes; about 6 GB on Linux)"
  "$VENV/bin/python" -m pip install --quiet --upgrade pip
  # torch and torchvision in one command: only then does pip choose a pair that fits.
  "$VENV/bin/python" -m pip install "$quiet" torch torchvision -e ".${extras:+[$extras]}"
}

check_torch() {
  "$VENV/bin/python" -c 'import torchvision; torchvision.ops.nms' ||
    die "torch and torchvision in $VENV do not fit each other (see above). Usually pip found a stray torch wheel" \
      "(PIP_FIND_LINKS, a local mirror): remove $VENV, unset it, and run this again."
}

# The stamp says what was installed from which pyproject.toml, for which checkout.
state="$({
  pwd
  cat pyproject.toml
} | cksum | cut -d ' ' -f 1)"

if [ -x "$VENV/bin/python" ] && recent "$VENV/bin/python"; then
  if [ -e "$STAMPS/$state-$extras" ]; then
    say "$VENV is up to date"
    exit 0
  fi
else
  make_venv
fi
install_package
check_torch
mkdir -p "$STAMPS"
touch "$STAMPS/$state-" "$STAMPS/$state-$extras" # any extras include the plain package
say "done: $VENV/bin/jepa-pretrain"
